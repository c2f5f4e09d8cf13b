"""Follow the placement of least energy that a linear program finds for the whole epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from schedulers.base import PlacementPolicy
from schedulers.bounds import area_bound, least_makespan_s
from schedulers.estimates import finish_s
from schedulers.kinds import MAX_CLASSES, MAX_WORKERS, add_kind, costs_by_class, find_kind
from schedulers.parameters import check_number

PLACED = 0
"""In a kind's row of the table: how many tasks of the kind were placed since the plan."""
SHARE, GIVEN, ENDED, LENGTH = (1 + MAX_CLASSES * i for i in range(4))
"""And for each class: its share of the kind, the tasks given to it, those that ended ever, and their seconds."""
WIDTH = 1 + 4 * MAX_CLASSES
TABLE = MAX_WORKERS
"""memory[worker] is the worker's class; the table follows."""
ROUNDING = 1e-9


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LpQuota(PlacementPolicy):
    """Give each task to the class that is furthest behind its quota, and there to the worker that ends it first.

    Before each epoch a linear program (``schedulers.bounds.area_bound``) finds how many tasks n*_kr of kind k each
    worker class r should take for the fewest joules, static watts included, within ``max_slowdown`` times the least
    makespan. The j-th task of kind k goes to the class of the largest deficit

        j * n*_kr / N_k - (tasks of kind k given to r so far)

    Of equal deficits the earlier end decides, ``available_s + transfer_s + length_s``, then the lower worker id.
    From the second plan on lengths are means over those measured, the expected one counting as one more, and energies
    are scaled with them. A kind that is not in the plan goes where it ends first.
    Source: Tarplee et al., Energy-aware profit maximizing scheduling, SCI 580 (LP); Beaumont et al. 2016 (area bound).
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("length_s", "energy_j", "idle_w")
    HOOKS: ClassVar[tuple[str, ...]] = ("task_ended",)
    PLANS: ClassVar[bool] = True

    max_slowdown: float = math.inf
    """Latest end of the epoch as a multiple of the linear program's least makespan, >= 1; infinite: no deadline."""

    def __post_init__(self) -> None:
        check_number("max_slowdown", self.max_slowdown, at_least=1)

    def plan(self, kinds: Any, workers: Any, system: Any, memory: Any) -> None:
        """Solve the linear program for these counts and put the quotas into the table."""
        if len(kinds) == 0:
            return
        counts, lengths, energies, units, rows = _instance(self, kinds, workers, memory)
        static_w = float(system.base_w + system.idle_w)
        deadline_s = self.max_slowdown * least_makespan_s(counts, lengths, units)
        bound = area_bound(counts, lengths, energies, units, static_w=static_w, deadline_s=deadline_s)
        for row, tasks, count in zip(rows, bound.tasks, counts, strict=True):
            memory[row + PLACED] = 0.0
            memory[row + GIVEN : row + GIVEN + MAX_CLASSES] = 0.0
            memory[row + SHARE : row + SHARE + units.size] = tasks / count

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the worker of the largest deficit that ends the task first."""
        row = find_kind(memory, TABLE, WIDTH, task.codelet, task.footprint)
        if row >= 0:
            memory[row + PLACED] += 1
        best, best_deficit, best_s = -1, 0.0, 0.0
        for w in range(len(workers)):
            if not workers[w].can_run:
                continue
            deficit = 0.0
            if row >= 0:
                c = workers[w].worker_class
                deficit = memory[row + PLACED] * memory[row + SHARE + c] - memory[row + GIVEN + c]
            end_s = finish_s(workers[w])
            workers[w].score = deficit
            ahead = deficit - best_deficit
            if best < 0 or ahead > ROUNDING or (ahead >= -ROUNDING and end_s < best_s):
                best, best_deficit, best_s = w, deficit, end_s
        if row >= 0:
            memory[row + GIVEN + workers[best].worker_class] += 1
        return best

    def task_ended(self, task: Any, worker: int, length_s: float, system: Any, memory: Any) -> None:
        """Add a measured length to the mean of its kind and class."""
        row = find_kind(memory, TABLE, WIDTH, task.codelet, task.footprint)
        if row >= 0:
            c = int(memory[worker])
            memory[row + ENDED + c] += 1
            memory[row + LENGTH + c] += length_s


def _instance(policy: LpQuota, kinds: Any, workers: Any, memory: Any) -> tuple[Any, Any, Any, Any, list[int]]:
    """Return counts (K), lengths and energies (K, R) with what was measured, units (R), and each kind's table row."""
    expected_s, expected_j, units, _ = costs_by_class(policy, kinds, workers)
    memory[: workers.shape[1]] = workers[0]["worker_class"]
    counts: dict[int, float] = {}
    lengths: dict[int, np.ndarray] = {}
    energies: dict[int, np.ndarray] = {}
    for kind, length_s, energy_j in zip(kinds, expected_s, expected_j, strict=True):
        row = int(add_kind(memory, TABLE, WIDTH, kind["codelet"], kind["footprint"]))
        ended = memory[row + ENDED : row + ENDED + units.size]
        measured_s = (length_s + memory[row + LENGTH : row + LENGTH + units.size]) / (1 + ended)
        counts[row] = counts.get(row, 0.0) + float(kind["count"])
        lengths[row], energies[row] = measured_s, energy_j * measured_s / length_s
    rows = list(counts)
    count, length, energy = (np.array([of[row] for row in rows]) for of in (counts, lengths, energies))
    return count, length, energy, units, rows
