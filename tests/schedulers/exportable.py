"""Policies whose export is tested: what hooks learn, watts that differ, and what cannot leave Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from schedulers import PlacementPolicy

BIG = np.arange(1 << 20, dtype=np.float64)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LeastWorked(PlacementPolicy):
    """Takes the worker whose tasks have lasted the least so far, started ones counted as ``head_start_s``."""

    HOOKS: ClassVar[tuple[str, ...]] = ("task_started", "task_ended")
    head_start_s: float = 1e-3

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        best = -1
        for w in range(len(workers)):
            if workers[w].can_run and (best < 0 or memory[w] < memory[best]):
                best = w
        memory[best] += self.head_start_s / 8
        return best

    def task_started(self, task: Any, worker: int, system: Any, memory: Any) -> None:
        memory[worker] += self.head_start_s

    def task_ended(self, task: Any, worker: int, length_s: float, system: Any, memory: Any) -> None:
        memory[worker] += length_s


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LeastIdleWatts(PlacementPolicy):
    """Takes the worker with the fewest idle watts; refuses workers of domain 9."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        best = 0
        for w in range(len(workers)):
            if workers[w].power_domain == 9:
                raise ValueError("domain 9")
            if workers[w].idle_w < workers[best].idle_w:
                best = w
        return best


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RaisesWithNumbers(PlacementPolicy):
    """Raises an exception that holds numbers known only when it is raised."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        if task.id == 2:
            raise ValueError("task", task.id, system.now_s)
        return 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MakesAnArray(PlacementPolicy):
    """Allocates at each question."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        return int(np.zeros(len(workers) + task.id).sum())


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReadsABigArray(PlacementPolicy):
    """Reads an array of its module that Numba compiles in by its address."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        return int(BIG[task.id])
