"""Policies that the tests install: one that places well, and several that misbehave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

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


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Learns(PlacementPolicy):
    """Counts starts and ends, and adds up measured lengths; takes worker 0."""

    HOOKS: ClassVar[tuple[str, ...]] = ("task_started", "task_ended")

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        for w in range(len(workers)):
            workers[w].score = 10.0 + w
        memory[3] = task.b_level_s
        return 0

    def task_started(self, task: Any, worker: int, system: Any, memory: Any) -> None:
        memory[0] += 1

    def task_ended(self, task: Any, worker: int, length_s: float, system: Any, memory: Any) -> None:
        memory[1] += 1
        memory[2] += length_s


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plans(PlacementPolicy):
    """Runs everything on the worker that its plan names."""

    PLANS: ClassVar[bool] = True

    def plan(self, kinds: Any, workers: Any, system: Any, memory: Any) -> None:
        memory[0] = workers[0].length_s.argmin()
        memory[1] = kinds["count"].sum()

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        return int(memory[0])


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LastPlaceFirst(PlacementPolicy):
    """Runs everything on worker 0, what comes last in the graph first."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        workers[0].rank = 1 + task.place
        return 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NeverAnswers(PlacementPolicy):
    """Loops for ever."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        while memory[0] < 1:
            memory[1] += 1
        return 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SeesWatts(PlacementPolicy):
    """Notes the measured and the modelled watts at its first four questions, then their age."""

    answer: int = 2
    """Worker 2 is a CPU of the test's node."""

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        count = int(memory[0])
        memory[1 + count] = system.measured_w
        memory[5 + count] = system.modelled_w
        memory[9 + count] = system.measured_age_s
        memory[0] += 1
        return self.answer
