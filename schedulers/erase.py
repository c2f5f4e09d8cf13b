"""Learn what each kind of task takes on each class of workers, and run it where it is cheapest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numba
import numpy as np

from schedulers.base import PullPolicy
from schedulers.kinds import MAX_CLASSES, MAX_WORKERS, add_kind, find_kind
from schedulers.parameters import check_number

TAKEN, ENDED, LENGTH = (MAX_CLASSES * i for i in range(3))
"""In a kind's row of the table, for each class: tasks taken to learn, tasks that ended, and their seconds."""
WIDTH = 3 * MAX_CLASSES
TABLE = MAX_WORKERS
"""memory[worker] is the worker's class; the table follows."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Erase(PullPolicy):
    """Take the oldest task that no other class is predicted to do for fewer joules, an idle share included.

    The predicted joules of kind k on class c, with p workers busy once the task runs, are

        length_kc * (busy_w_c - idle_w_c) + length_kc * (base_w + idle_w) / p

    where length_kc is the mean of the lengths measured so far: expected lengths are not used. The first ``explore``
    tasks of a kind that idle workers of a class see are taken to learn. While those run, the class takes no more of the
    kind; until they end, its prediction is not compared. A worker also steals a task that another class does for fewer
    joules if no worker of that class is idle and here it takes at most ``steal_ratio`` times as many.
    The cheapest class known never declines, so no task starves.
    Source: Chen et al., ERASE, ACM TACO 19(2):27, 2022; power is the power model's instead of a sensor's for each core.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("idle_w", "busy_w")
    HOOKS: ClassVar[tuple[str, ...]] = ("task_ended",)

    explore: int = 3
    """Tasks of each kind that each class runs to learn, >= 1."""
    steal_ratio: float = 1.25
    """Most joules of a stolen task as a multiple of those on its cheapest class, >= 1. 1: no stealing."""

    def __post_init__(self) -> None:
        check_number("explore", self.explore, at_least=1)
        check_number("steal_ratio", self.steal_ratio, at_least=1)

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the oldest row to learn from, else the oldest that is cheapest here or may be stolen, or -1."""
        mine = workers[0, worker].worker_class
        if worker >= MAX_WORKERS or mine >= MAX_CLASSES:
            raise ValueError("more than 512 workers or 16 worker classes: this policy keeps a table of them")
        memory[worker] = mine
        share_w = (system.base_w + system.idle_w) / _busy_with(worker, workers[0])
        learning, chosen = -1, -1
        for row in range(len(ready)):
            kind = add_kind(memory, TABLE, WIDTH, ready[row].codelet, ready[row].footprint)
            if memory[kind + TAKEN + mine] < self.explore:
                if learning < 0 or ready[row].sequence < ready[learning].sequence:
                    learning = row
                continue
            oldest = chosen < 0 or ready[row].sequence < ready[chosen].sequence
            if oldest and _suits(worker, workers[row], kind, share_w, self.steal_ratio, memory):
                chosen = row
        if learning < 0:
            return chosen
        kind = add_kind(memory, TABLE, WIDTH, ready[learning].codelet, ready[learning].footprint)
        memory[kind + TAKEN + mine] += 1
        return learning

    def task_ended(self, task: Any, worker: int, length_s: float, system: Any, memory: Any) -> None:
        """Add a measured length to the mean of its kind and class."""
        kind = find_kind(memory, TABLE, WIDTH, task.codelet, task.footprint)
        c = int(memory[worker])
        memory[kind + ENDED + c] += 1
        memory[kind + LENGTH + c] += length_s


@numba.njit
def _busy_with(worker: int, row: Any) -> int:
    """How many workers are busy when this one is."""
    busy = 1
    for other in range(len(row)):
        if other != worker and row[other].queued > 0:
            busy += 1
    return busy


@numba.njit
def _predicted_j(one: Any, kind: int, share_w: float, memory: Any) -> float:
    """Joules of a task of the kind on a worker of this class; NaN until one has ended there."""
    c = one.worker_class
    if memory[kind + ENDED + c] == 0:
        return np.nan
    length_s = memory[kind + LENGTH + c] / memory[kind + ENDED + c]
    return length_s * (one.busy_w - one.idle_w + share_w)


@numba.njit
def _suits(worker: int, row: Any, kind: int, share_w: float, steal_ratio: float, memory: Any) -> bool:
    """Whether no other class is cheaper, or the cheapest one has no idle worker and this one is dear by little."""
    here_j = _predicted_j(row[worker], kind, share_w, memory)
    row[worker].score = here_j
    if np.isnan(here_j):
        return False
    best = worker
    best_j = here_j
    for other in range(len(row)):
        if row[other].can_run:
            there_j = _predicted_j(row[other], kind, share_w, memory)
            if there_j < best_j:
                best, best_j = other, there_j
    if best_j == here_j:
        return True
    for other in range(len(row)):
        if row[other].worker_class == row[best].worker_class and row[other].queued == 0:
            return False
    return here_j <= steal_ratio * best_j
