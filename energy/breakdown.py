"""What a window's joules went to: computing, polling, sleeping, scheduling, transfers. Modelled.

Worker by worker, the window is cut by the trace of the tasks, and each stretch takes the power model's watts:

* compute: from a task's start to its end, at the busy watts of its codelet;
* polling: once no worker runs a task, the stretch in which one is still awake and looks for some;
* scheduling: a worker without a task, whose next one is ready already and needs no transfer (it lives in the host's
  memory): the time of the decision, of the queue and of waking up;
* transfers: the same on a worker with a memory of its own, which waits for data, and what moving them takes;
* sleep: the rest of the workers' time;
* base: what flows whatever the workers do.

What a counter shows beyond the model, or short of it, is the remainder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from energy.activity import (
    LINK,
    Floats,
    PowerModel,
    TaskRecords,
    activity_energy,
    awake_idle_j,
    polling_spans,
)
from energy.source import Quality

_HOST_CHANNEL = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """Joules by what they went to; with `remainder_j` they sum up to `total_j`."""

    compute_j: float
    polling_j: float
    sleep_j: float
    scheduling_j: float
    transfers_j: float
    base_j: float
    remainder_j: float | None
    """What the total holds beyond the model's parts, below 0 where it holds less; None without a total."""
    total_j: float | None
    quality: ClassVar[Quality] = "modelled"

    @property
    def parts_j(self) -> dict[str, float]:
        """The parts by name, without the remainder."""
        names = [field.name for field in fields(self)][:6]
        return {name.removesuffix("_j"): float(getattr(self, name)) for name in names}


def break_down(
    model: PowerModel, tasks: TaskRecords, start_s: float, end_s: float, total_j: float | None
) -> Breakdown:
    """Cut the window from `start_s` to `end_s` of the tasks' clock; `total_j` is what was counted for it.

    `tasks` has `ready_s` besides: when a worker was chosen. Raises what `activity_energy` raises.
    """
    whole = activity_energy(model, tasks, start_s, end_s)
    columns = _columns(tasks, start_s, end_s)
    polling_from_s, polling_to_s = polling_spans(model, tasks, start_s, end_s)
    polling_s = float((polling_to_s - polling_from_s).sum())
    awake = model.workers[model.awake_worker]
    waits_s, busy_idle_j, sleep_j = {"scheduling": 0.0, "transfers": 0.0}, 0.0, 0.0
    for index, worker in enumerate(model.workers):
        own = {name: column[columns["worker"] == index] for name, column in columns.items()}
        busy_s = float((own["end_s"] - own["start_s"]).sum())
        wait_from_s, wait_to_s = _waits(own, start_s)
        wait_s = float((wait_to_s - wait_from_s).sum())
        own_polling_s = polling_s if index == model.awake_worker else 0.0
        if own_polling_s:
            wait_s -= _overlap_s(wait_from_s, wait_to_s, polling_from_s, polling_to_s)
        kind = "scheduling" if worker.channel == _HOST_CHANNEL else "transfers"
        waits_s[kind] += wait_s * worker.asleep_w
        busy_idle_j += worker.asleep_w * busy_s
        sleep_j += worker.asleep_w * ((end_s - start_s) - busy_s - wait_s - own_polling_s)
    extra_polling_j = polling_s * (awake.polling_w - awake.asleep_w)
    awake_j = awake_idle_j(model, tasks, start_s, end_s)
    link_j = whole[LINK].net_j if LINK in whole else 0.0
    net_j = sum(energy.net_j for energy in whole.values())
    compute_j = busy_idle_j + net_j - extra_polling_j - awake_j - link_j
    parts = {
        "compute_j": compute_j,
        "polling_j": polling_s * awake.polling_w,
        "sleep_j": sleep_j + awake_j,
        "scheduling_j": waits_s["scheduling"],
        "transfers_j": waits_s["transfers"] + link_j,
        "base_j": model.base_w * (end_s - start_s),
    }
    remainder_j = None if total_j is None else total_j - math.fsum(parts.values())
    return Breakdown(**parts, remainder_j=remainder_j, total_j=total_j)


def _columns(tasks: TaskRecords, start_s: float, end_s: float) -> Mapping[str, Floats]:
    """The tasks inside the window, by start."""
    found = {
        name: np.asarray(tasks[name], dtype=np.float64) for name in ("worker", "ready_s", "start_s", "end_s")
    }
    found["start_s"] = np.clip(found["start_s"], start_s, end_s)
    found["end_s"] = np.clip(found["end_s"], start_s, end_s)
    order = np.argsort(found["start_s"], kind="stable")
    order = order[(found["end_s"] > found["start_s"])[order]]
    return {name: column[order] for name, column in found.items()}


def _waits(own: Mapping[str, Floats], start_s: float) -> tuple[Floats, Floats]:
    """For each task of one worker: since when the worker waited for it with the task ready, and its start."""
    free_s = np.concatenate([[start_s], own["end_s"][:-1]])[: own["start_s"].size]
    ready_s = np.where(np.isfinite(own["ready_s"]), own["ready_s"], own["start_s"])
    return np.minimum(np.maximum(free_s, ready_s), own["start_s"]), own["start_s"]


def _overlap_s(from_s: Floats, to_s: Floats, other_from_s: Floats, other_to_s: Floats) -> float:
    """How long both of two lists of stretches last; those of one list do not overlap."""
    edges_s = np.column_stack([other_from_s, other_to_s]).ravel()
    lasted_s = np.concatenate([[0.0], np.cumsum(np.diff(edges_s) * (np.arange(edges_s.size - 1) % 2 == 0))])
    return float((np.interp(to_s, edges_s, lasted_s) - np.interp(from_s, edges_s, lasted_s)).sum())
