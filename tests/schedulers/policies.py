"""Policies that the tests install: one that places well, and several that misbehave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from schedulers import PlacementPolicy, PullPolicy


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EarliestFinish(PlacementPolicy):
    """Minimum completion time: the textbook rule."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        best = -1
        for w in range(len(workers)):
            if not workers[w].can_run:
                continue
            finish_s = workers[w].available_s + workers[w].transfer_s + workers[w].length_s
            if best < 0 or finish_s < memory[0]:
                best = w
                memory[0] = finish_s
        return best


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Always(PlacementPolicy):
    """The same answer to everything."""

    answer: int = 0

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        return self.answer


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RaisesAt(PlacementPolicy):
    """Raises at its n-th question."""

    count: int = 3

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        memory[0] += 1
        if memory[0] >= self.count:
            raise ArithmeticError("the policy gave up")
        return 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NeverTakes(PullPolicy):
    """Leaves every worker idle."""

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        return -1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TakesRow(PullPolicy):
    """A row that may not be there."""

    row: int = 99

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        return self.row


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Uncompilable(PullPolicy):
    """Uses what Numba cannot compile."""

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        return int(open("/dev/null").read() or 0)
