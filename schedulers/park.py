"""Keep only the workers active that are needed to end in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from schedulers.base import PullPolicy
from schedulers.bounds import fewest_watts, least_makespan_s
from schedulers.kinds import MAX_WORKERS, add_kind, costs_by_class, find_kind

START_S, WORK_S, TAKEN_S, PACE, PROBING = range(5)
"""In memory: when the first task was taken, the epoch's work, what was taken of it, its share due each second, the probe."""
ACTIVE = 8
"""memory[ACTIVE + worker] is 1 where the worker is active."""
TABLE = ACTIVE + MAX_WORKERS
WIDTH = 1
"""Of each kind: the work of one task, that is its seconds on its fastest class."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Park(PullPolicy):
    """Run on the active workers of the fewest watts that keep the deadline; leave the others asleep.

    The deadline is ``max_slowdown`` times what the epoch takes with every worker active. Before each epoch an integer
    program (``schedulers.bounds.fewest_watts``) chooses how many workers a_r of each class are active:

        min sum_r busy_w_r a_r   so that the tasks' area fits:  sum_k d_kr n_kr <= a_r * max_slowdown * T_all

    with T_all the least makespan of all workers. In a class the workers of the lowest ids are active, which take the
    oldest ready task. Where the epoch is behind, that is where the share of its work that was taken (a task counts as
    long as it takes on its fastest class) is less than the share of the deadline that has passed, every worker is awake
    until it has caught up. Task graphs are slower than
    their area, so the first ``probe_share`` of the work runs on every worker, and its pace is that of T_all from then
    on. Kinds that are not in the plan are for every worker.
    Sources: Hoffmann, HotPower 2013 (racing and pacing to idle); Kim et al., CPSNA 2015.
    """

    PLANS: ClassVar[bool] = True

    max_slowdown: float = 1.5
    """Deadline of the epoch as a multiple of its length with every worker active, >= 1."""
    probe_share: float = 0.05
    """Share of the work over which the pace of all workers is measured, in [0, 1). 0: the area's pace is taken."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_slowdown < float("inf"):
            raise ValueError(f"max_slowdown must be 1 or more and finite, got {self.max_slowdown}")
        if not 0 <= self.probe_share < 1:
            raise ValueError(f"probe_share must be at least 0 and below 1, got {self.probe_share}")

    def plan(self, kinds: Any, workers: Any, system: Any, memory: Any) -> None:
        """Choose the active workers for these counts."""
        if len(kinds) == 0:
            return
        lengths, _, units, first = costs_by_class("park", kinds, workers)
        counts, busy_w = kinds["count"].astype(float), workers[0]["busy_w"][first]
        deadline_s = self.max_slowdown * least_makespan_s(counts, lengths, units)
        chosen = fewest_watts(counts, lengths, units, busy_w, deadline_s=deadline_s)
        work_s = np.nanmin(lengths, axis=1)
        memory[TABLE:] = 0.0
        for kind, of_kind_s in zip(kinds, work_s, strict=True):
            row = add_kind(memory, TABLE, WIDTH, kind["codelet"], kind["footprint"])
            memory[row] = of_kind_s
        for c, active in enumerate(chosen.active):
            for rank, worker in enumerate(np.flatnonzero(workers[0]["worker_class"] == c)):
                memory[ACTIVE + worker] = float(rank < active)
        memory[WORK_S], memory[TAKEN_S] = work_s @ counts, 0.0
        memory[PACE], memory[PROBING] = 1 / deadline_s, float(self.probe_share > 0)

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the oldest row, or -1 for a parked worker while the epoch keeps its pace."""
        elapsed_s = system.now_s - memory[START_S] if memory[TAKEN_S] > 0 else 0.0
        share = memory[TAKEN_S] / memory[WORK_S] if memory[WORK_S] > 0 else 1.0
        if memory[PROBING] and share >= self.probe_share and elapsed_s > 0:
            memory[PROBING] = 0.0
            memory[PACE] = share / elapsed_s / self.max_slowdown
        awake = memory[PROBING] or memory[ACTIVE + worker] or elapsed_s * memory[PACE] > share
        chosen, planned = -1, -1
        for row in range(len(ready)):
            kind = find_kind(memory, TABLE, WIDTH, ready[row].codelet, ready[row].footprint)
            if kind >= 0 and not awake:
                continue
            if chosen < 0 or ready[row].sequence < ready[chosen].sequence:
                chosen, planned = row, kind
        if planned >= 0:
            if memory[TAKEN_S] == 0:
                memory[START_S] = system.now_s
            memory[TAKEN_S] += memory[planned]
        return chosen
