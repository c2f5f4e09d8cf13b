"""Policies that each break one part of the contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from schedulers import PlacementPolicy, PullPolicy


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetsWhoCanRun(PlacementPolicy):
    """Takes the worker that is free first, whether or not it can run the task."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        best = 0
        for w in range(len(workers)):
            if workers[w].available_s < workers[best].available_s:
                best = w
        return best


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TripsOverNan(PlacementPolicy):
    """Compares finishes, which are all unknown where the transfers are."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        best, best_s = -1, np.inf
        for w in range(len(workers)):
            finish_s = workers[w].available_s + workers[w].transfer_s + workers[w].length_s
            if workers[w].can_run and finish_s < best_s:
                best, best_s = w, finish_s
        return best


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LowestNumber(PlacementPolicy):
    """Takes the first worker in the list that can run the task."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        for w in range(len(workers)):
            if workers[w].can_run:
                return w
        return -1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LowestNumberPulls(PullPolicy):
    """Lets the first half of the workers take the oldest task, and the others only when the machine works."""

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        if 2 * worker >= workers.shape[1] and system.running_count > 0:
            return -1
        return 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Dice(PlacementPolicy):
    """Draws a worker that can run the task."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        w = np.random.randint(0, len(workers))  # noqa: NPY002 (Numba compiles this one)
        while not workers[w].can_run:
            w = (w + 1) % len(workers)
        return w


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Overflows(PlacementPolicy):
    """Hashes with integers, which are of any size in Python and of 64 bits compiled."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        value = 1
        for _ in range(int(task.id) % 7 + 50):
            value = value * 31 + 7
        w = value % len(workers)
        while not workers[w].can_run:
            w = (w + 1) % len(workers)
        return w


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RemembersOverflow(PlacementPolicy):
    """Answers well, and remembers what only 64 bits make of it."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        value = 1
        for _ in range(60):
            value = value * 31
        memory[0] = value
        best = -1
        for w in range(len(workers)):
            if workers[w].can_run and (best < 0 or workers[w].energy_j < workers[best].energy_j):
                best = w
        return best


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WaitsForever(PullPolicy):
    """Takes a task only where another one runs."""

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        return 0 if system.running_count > 0 else -1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OneRowTooMany(PullPolicy):
    """Answers a row that is not there."""

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        return len(ready)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TakesAnyWeight(PullPolicy):
    """Takes every number; the oldest row, always."""

    weight: float = 1.0

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        return 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MumblesItsRefusal(PullPolicy):
    """Refuses without saying what."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError("this does not work")

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        return 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GivesUpLate(PlacementPolicy):
    """Works well for a hundred tasks."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        memory[0] += 1
        if memory[0] > 100:
            raise ArithmeticError("a hundred tasks are enough")
        best = -1
        for w in range(len(workers)):
            if workers[w].can_run and (best < 0 or workers[w].energy_j < workers[best].energy_j):
                best = w
        return best


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HookRaises(PlacementPolicy):
    """Fails where a task ends."""

    HOOKS: ClassVar[tuple[str, ...]] = ("task_ended",)

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        for w in range(len(workers)):
            if workers[w].can_run:
                return w
        return -1

    def task_ended(self, task: Any, worker: int, length_s: float, system: Any, memory: Any) -> None:
        raise ArithmeticError("never ends well")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HoldsText(PlacementPolicy):
    """Has a field that cannot be compiled in."""

    mode: str = "fast"

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        return 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsMoreThanItSays(PullPolicy):
    """Compares joules with idle watts, which its needs do not name."""

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        for row in range(len(ready)):
            if workers[row, worker].energy_j <= workers[row, worker].energy_j + system.idle_w:
                return row
        return -1
