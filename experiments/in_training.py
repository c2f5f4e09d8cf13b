"""Lengths of tasks as training runs them, and what the runtime takes around each.

A kind of task that runs alone finds its data in its own core's caches; in training other tasks have just used both.
The simulation of this machine (`experiments.host_platform`) takes these lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dahl import starpu
from dahl.training import Trainer

AWAKE_S = 5e-6
"""A worker that becomes free and gets its next task within this time did not go to sleep in between."""

AT_LEAST_S = 1.0
"""How long mini-batches run at least."""

WARM_UP = 5

UNUSUAL = 10


@dataclass(frozen=True, kw_only=True)
class Around:
    """Seconds around a task, each a mean without interruptions; NaN where nothing of the kind happened."""

    gap_s: float
    """From a task's end to the next one's start on a worker that had one waiting: by kind of task, then their mean."""
    after_s: float
    """From a task's end until one that waited for it was ready."""
    wake_s: float
    """From when a task was ready to its start on a worker that had none before."""
    wakes: int
    submit_s: float
    """From one submission to the next."""


@dataclass(frozen=True, kw_only=True)
class InTraining:
    """What mini-batches of one model and tile size took under one scheduler."""

    model: Mapping[str, Any]
    batch_size: int
    tile: int
    fused: bool
    workers: int
    worker_class: str
    kernels: str
    scheduler: str
    tasks: int
    seconds: Mapping[str, float]
    """By kind of task its mean length, without interruptions."""
    counts: Mapping[str, int]
    sigma: float
    """How much tasks of one kind vary: the standard deviation of their lengths' logarithms, by time."""
    around: Mapping[str, float]

    @property
    def same(self) -> tuple[Any, ...]:
        """What a second measurement of the same would share."""
        model = tuple(sorted((key, str(value)) for key, value in self.model.items()))
        return (
            model,
            self.batch_size,
            self.tile,
            self.fused,
            self.workers,
            self.worker_class,
            self.kernels,
            self.scheduler,
        )


def run_batches(runtime: starpu.Runtime, trainer: Trainer) -> np.ndarray:
    """Train for `AT_LEAST_S` after a warm-up; returns the trace. The parameters change."""
    total = trainer.batches_per_epoch
    warm = min(WARM_UP, total)
    runtime.take_trace()
    seconds = trainer.run_epoch(1, max_batches=warm).seconds
    runtime.take_trace()
    batches = int(np.clip(AT_LEAST_S / max(seconds / warm, 1e-9), 1, total))
    seconds, epoch = 0.0, 1
    traces: list[np.ndarray] = []
    while seconds < AT_LEAST_S / 2 or not traces:
        epoch += 1
        seconds += trainer.run_epoch(epoch, max_batches=batches).seconds
        traces.append(runtime.take_trace())
    return np.concatenate(traces)


def lengths(trace: np.ndarray, footprints: Sequence[str]) -> tuple[dict[str, float], dict[str, int]]:
    """Length and number of the tasks of each kind in a trace."""
    seconds, counts = {}, {}
    for number, key in enumerate(footprints):
        own = trace[trace["footprint"] == number]
        if own.size:
            seconds[key] = usual_mean(own["end_s"] - own["start_s"])
            counts[key] = int(own.size)
    return seconds, counts


def sigma_of(trace: np.ndarray) -> float:
    """The standard deviation of the logarithms of lengths about their kind's mean, each task as long as it took."""
    lengths_s = trace["end_s"] - trace["start_s"]
    variances, weights = [0.0], [1e-12]
    for number in np.unique(trace["footprint"]):
        own = lengths_s[trace["footprint"] == number]
        own = own[(own > 0) & (own <= UNUSUAL * np.median(own))]
        if own.size > 1:
            variances.append(float(np.log(own).var()))
            weights.append(float(own.sum()))
    return float(np.sqrt(np.average(variances, weights=weights)))


def around_tasks(trace: np.ndarray) -> Around:
    """What the runtime took around the tasks of a trace."""
    gaps, wakes, kinds = [], [], []
    for worker in np.unique(trace["worker"]):
        own = np.sort(trace[trace["worker"] == worker], order="start_s")
        free_s, start_s, ready_s = own["end_s"][:-1], own["start_s"][1:], own["ready_s"][1:]
        was_awake = ready_s <= free_s + AWAKE_S
        gaps.append((start_s - free_s)[was_awake])
        kinds.append(own["footprint"][1:][was_awake])
        wakes.append((start_s - ready_s)[~was_awake])
    ends_s = np.sort(trace["end_s"])
    released = np.sort(trace["ready_s"][trace["ready_s"] > trace["submit_s"] + AWAKE_S])
    released = released[released > ends_s[0]]
    after = released - ends_s[np.searchsorted(ends_s, released, side="right") - 1]
    submitted = np.diff(np.sort(trace["submit_s"]))
    return Around(
        gap_s=_mean_of_kinds(np.concatenate(gaps), np.concatenate(kinds)),
        after_s=usual_mean(after),
        wake_s=usual_mean(np.concatenate(wakes)),
        wakes=int(np.concatenate(wakes).size),
        submit_s=usual_mean(submitted),
    )


def as_in_training(row: Mapping[str, Any]) -> InTraining:
    """A row of the file. Raises TypeError where fields are missing or unknown."""
    return InTraining(**row)


def with_in_training(record: Mapping[str, Any], found: InTraining) -> dict[str, Any]:
    """The file's record with a measurement in place of an earlier one of the same."""
    rows = record.get("in_training", [])
    others = [row for row in rows if as_in_training(row).same != found.same]
    return {**record, "in_training": [*others, asdict(found)]}


def _mean_of_kinds(values: np.ndarray, kinds: np.ndarray) -> float:
    """A kind with many data takes longer each time, which is nothing unusual."""
    if not values.size:
        return float("nan")
    numbers, counts = np.unique(kinds, return_counts=True)
    return float(np.average([usual_mean(values[kinds == number]) for number in numbers], weights=counts))


def usual_mean(values: np.ndarray) -> float:
    """The mean of what is at most `UNUSUAL` times the median, since more is an interruption; NaN of nothing."""
    if not values.size:
        return float("nan")
    return float(values[values <= UNUSUAL * np.median(values)].mean())
