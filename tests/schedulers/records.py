"""The records that a policy sees, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schedulers.base import MEMORY_FLOATS
from schedulers.views import READY, SYSTEM, TASK, WORKER


def empty_memory() -> np.ndarray:
    return np.zeros(MEMORY_FLOATS)


def workers_of(
    classes: Sequence[int],
    length_s: Sequence[Sequence[float]],
    energy_j: Sequence[Sequence[float]] | None = None,
    *,
    idle_w: Sequence[float] | None = None,
    busy_w: Sequence[float] | None = None,
) -> Any:
    """WORKER records (kinds, workers) from each worker's class and figures by kind and class; NaN cannot run."""
    lengths = np.array(length_s, float)
    views = np.recarray((len(lengths), len(classes)), WORKER)
    views[:] = np.zeros((), WORKER)
    for w, c in enumerate(classes):
        views["length_s"][:, w] = lengths[:, c]
        views["energy_j"][:, w] = np.array(energy_j)[:, c] if energy_j is not None else lengths[:, c]
        views["can_run"][:, w] = ~np.isnan(lengths[:, c])
        views["worker_class"][:, w] = c
        views["idle_w"][:, w] = idle_w[c] if idle_w else 1.0
        views["busy_w"][:, w] = busy_w[c] if busy_w else 5.0
    return views


def kinds_of(counts: Sequence[int]) -> Any:
    """READY records: codelet k, footprint 10 k, in the order of arrival."""
    ready = np.recarray(len(counts), READY)
    for k, count in enumerate(counts):
        ready[k] = (count, k, 10 * k, 0.0, np.nan, k, 0)
    return ready


def task_of(kind: int) -> Any:
    """A TASK record of that kind."""
    task = np.recarray(1, TASK)
    task[0] = (0, 10 * kind, 0.0, np.nan, kind, 0, -1, -1)
    return task[0]


def system_of(*, now_s: float = 0.0, base_w: float = 10.0, idle_w: float = 2.0) -> Any:
    """A SYSTEM record."""
    system = np.recarray(1, SYSTEM)
    system[0] = (now_s, base_w, idle_w, base_w + idle_w, np.nan, np.nan, 0, 0)
    return system[0]
