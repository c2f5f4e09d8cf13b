"""Keep only the workers active that are needed to end in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numba
import numpy as np

from schedulers.base import PullPolicy
from schedulers.bounds import fewest_watts, least_makespan_s
from schedulers.estimates import known_or_zero
from schedulers.kinds import MAX_CLASSES, MAX_WORKERS, add_kind, costs_by_class, find_kind
from schedulers.parameters import check_number

START_S, WORK_S, TAKEN_S, DEADLINE_S, NEEDED_S, ALL_S, PROBING = range(7)
"""In memory, in seconds: when the first task was taken, the epoch's work, what was taken of it, the deadline, what the
active and what all workers need for the whole; and whether all workers are still being measured."""
ACTIVE = 8
"""memory[ACTIVE + worker] is 1 where the worker is active."""
UNITS = ACTIVE + MAX_WORKERS
AREA_S = UNITS + MAX_CLASSES
"""For each class: its workers that are awake, and the seconds of what they have and of all that is ready."""
TABLE = AREA_S + MAX_CLASSES
WIDTH = 1
"""Of each kind: the work of one task, that is its seconds on its fastest class."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Park(PullPolicy):
    """Run on the active workers of the fewest watts that keep the deadline; leave the others asleep.

    The deadline is ``max_slowdown`` times what the epoch takes with every worker active. Before each epoch an integer
    program (``schedulers.bounds.fewest_watts``) chooses how many workers a_r of each class are active:

        min sum_r busy_w_r a_r   so that the tasks' area fits:  sum_k d_kr n_kr <= a_r * max_slowdown * T_all

    with T_all the least makespan of all workers. In a class the workers of the lowest ids are active. A worker that is
    awake takes the oldest ready task, but leaves it to a faster class that is awake and could work off all that is
    ready before this worker has done that one task. Every worker is awake while the active ones alone would be late,

        elapsed_s + (1 - share of the work that was taken) * T_active > max_slowdown * T_all

    where a task's work is its length on its fastest class. Task graphs take longer than their area, so the first
    ``probe_share`` of the work runs on every worker; then T_all and T_active are scaled to the pace that was measured.
    Kinds that are not in the plan are for every worker.
    Sources: Hoffmann, HotPower 2013 (racing and pacing to idle); Kim et al., CPSNA 2015.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("length_s", "busy_w")
    PLANS: ClassVar[bool] = True

    max_slowdown: float = 1.5
    """Deadline of the epoch as a multiple of its length with every worker active, 1 to 1e6."""
    probe_share: float = 0.05
    """Share of the work over which the pace of all workers is measured, 0 to 1. 0: the area's pace is taken."""

    def __post_init__(self) -> None:
        check_number("max_slowdown", self.max_slowdown, at_least=1, at_most=1e6)
        check_number("probe_share", self.probe_share, at_least=0, at_most=1)

    def plan(self, kinds: Any, workers: Any, system: Any, memory: Any) -> None:
        """Choose the active workers for these counts."""
        if len(kinds) == 0:
            return
        lengths, _, units, first = costs_by_class(self, kinds, workers)
        counts, busy_w = kinds["count"].astype(float), workers[0]["busy_w"][first]
        all_s = least_makespan_s(counts, lengths, units)
        deadline_s = self.max_slowdown * all_s
        chosen = fewest_watts(counts, lengths, units, busy_w, deadline_s=deadline_s)
        on = chosen.active > 0
        needed_s = least_makespan_s(counts, lengths[:, on], chosen.active[on])
        work_s = np.nanmin(lengths, axis=1)
        memory[TABLE:] = 0.0
        for kind, of_kind_s in zip(kinds, work_s, strict=True):
            row = add_kind(memory, TABLE, WIDTH, kind["codelet"], kind["footprint"])
            memory[row] = of_kind_s
        for c, active in enumerate(chosen.active):
            for rank, worker in enumerate(np.flatnonzero(workers[0]["worker_class"] == c)):
                memory[ACTIVE + worker] = float(rank < active)
        memory[WORK_S], memory[TAKEN_S] = work_s @ counts, 0.0
        memory[DEADLINE_S], memory[NEEDED_S], memory[ALL_S] = max(deadline_s, needed_s), needed_s, all_s
        memory[PROBING] = float(self.probe_share > 0)

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the oldest row, or -1 for a parked worker while the epoch keeps its pace."""
        elapsed_s = system.now_s - memory[START_S] if memory[TAKEN_S] > 0 else 0.0
        share = memory[TAKEN_S] / memory[WORK_S] if memory[WORK_S] > 0 else 1.0
        if memory[PROBING] and share >= self.probe_share and elapsed_s > 0:
            slower = elapsed_s / share / memory[ALL_S]
            memory[DEADLINE_S] *= slower
            memory[NEEDED_S] *= slower
            memory[PROBING] = 0.0
        late = elapsed_s + (1 - share) * memory[NEEDED_S] > memory[DEADLINE_S]
        all_awake = memory[PROBING] > 0 or late
        if memory[WORK_S] > 0:
            _sum_work(ready, workers, all_awake, memory)
        chosen, planned = -1, -1
        for row in range(len(ready)):
            kind = find_kind(memory, TABLE, WIDTH, ready[row].codelet, ready[row].footprint)
            if kind >= 0 and not (all_awake or memory[ACTIVE + worker]):
                continue
            older = chosen < 0 or ready[row].sequence < ready[chosen].sequence
            if older and (kind < 0 or not _done_sooner_elsewhere(worker, workers[row], memory)):
                chosen, planned = row, kind
        if planned >= 0:
            if memory[TAKEN_S] == 0:
                memory[START_S] = system.now_s
            memory[TAKEN_S] += memory[planned]
        return chosen


@numba.njit
def _sum_work(ready: Any, workers: Any, everybody: bool, memory: Any) -> None:
    """Add up by class the workers that are awake, and the seconds of what they have and of all that is ready."""
    memory[UNITS : UNITS + 2 * MAX_CLASSES] = 0.0
    for w in range(workers.shape[1]):
        if everybody or memory[ACTIVE + w] > 0:
            memory[UNITS + workers[0, w].worker_class] += 1.0
            memory[AREA_S + workers[0, w].worker_class] += workers[0, w].available_s
    for row in range(len(ready)):
        for w in range(workers.shape[1]):
            c = workers[row, w].worker_class
            if workers[row, w].can_run and (everybody or memory[ACTIVE + w] > 0):
                # Each worker adds its share, so that the class counts the row once.
                memory[AREA_S + c] += ready[row].count * workers[row, w].length_s / memory[UNITS + c]


@numba.njit
def _done_sooner_elsewhere(worker: int, row: Any, memory: Any) -> bool:
    """Whether a faster class that is awake could be done with all that is ready before this worker is with one task."""
    here_s = known_or_zero(row[worker].transfer_s) + row[worker].length_s
    for other in range(len(row)):
        c = row[other].worker_class
        if not row[other].can_run or memory[UNITS + c] == 0 or row[other].length_s >= row[worker].length_s:
            continue
        if here_s > memory[AREA_S + c] / memory[UNITS + c]:
            return True
    return False
