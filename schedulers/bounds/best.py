"""The best schedule of a small graph of whole tasks, by a mixed-integer program that decides places and orders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from schedulers.bounds.graph import Graph
from schedulers.bounds.instance import ROUNDING, BoundError, Instance, check_instance
from schedulers.bounds.mixed import mixed_bound
from schedulers.bounds.rows import Rows, sum_of

MAX_TASKS = 64
GAP = 1e-6
SOLVE_ERROR = 4
"""SciPy's status for what HiGHS could not solve."""


@final
@dataclass(frozen=True)
class BestSchedule:
    """The best schedule found, and how far below it a better one could be.

    ``classes[t]`` and ``starts_s[t]`` say where and when task t runs. ``bound_j`` is proven: no schedule takes less;
    it equals ``energy_j`` within 1e-6 where the search came to its end.
    """

    energy_j: float
    makespan_s: float
    bound_j: float
    classes: np.ndarray
    starts_s: np.ndarray

    @property
    def proven(self) -> bool:
        """Whether no schedule is better."""
        return self.energy_j - self.bound_j <= 10 * GAP * abs(self.energy_j)


def best_schedule(
    graph: Graph,
    length_s: ArrayLike,
    energy_j: ArrayLike,
    units: ArrayLike,
    *,
    static_w: float,
    deadline_s: float = math.inf,
    parking_w: ArrayLike | None = None,
    apart: ArrayLike | None = None,
    limit_s: float = 60.0,
) -> BestSchedule:
    """Return the schedule of one repetition of a graph that takes the fewest joules by the deadline.

    Minimises ``sum e_tr x_tr + static_w T`` over whole x_tw (task t on worker w), start times and an order of each two
    tasks that could meet on a worker (Manne's disjunctive constraints). A class with as many workers as tasks can be
    ready at once needs no order, unless they have memories of their own. Data that move between memories take
    the edge's transfer; links that are busy take nothing.

    ``limit_s`` ends the search; other arguments and errors are those of ``mixed_bound``. Raises ValueError for more
    than 64 tasks and BoundError where no schedule was found in time.
    """
    if len(graph) > MAX_TASKS:
        raise ValueError(
            f"{len(graph)} tasks are too many for the best schedule; it takes at most {MAX_TASKS}"
        )
    given = check_instance(length_s, energy_j, units, static_w=static_w, parking_w=parking_w, apart=apart)
    once = Graph(graph.kinds, graph.edges, transfer_s=graph.transfer_s)
    relaxed = mixed_bound(
        [once],
        length_s,
        energy_j,
        units,
        static_w=static_w,
        parking_w=parking_w,
        deadline_s=deadline_s,
        apart=apart,
    )
    return _Program(once, given, deadline_s).solve(limit_s, relaxed.energy_j)


def _latest_s(given: Instance, graph: Graph, deadline_s: float) -> float:
    """By when every schedule that wastes no time has ended: all one after another where they are slowest."""
    moving_s = sum(graph.transfer_s) if given.apart.any() else 0.0
    slowest_s = float(given.length_s[np.asarray(graph.kinds)].max(axis=1).sum())
    return min(slowest_s + moving_s, deadline_s * (1 + ROUNDING))


@final
class _Program:
    """Variables: x of each task and worker, start times, T, and an order for each pair without one."""

    def __init__(self, graph: Graph, given: Instance, deadline_s: float) -> None:
        self._graph, self._given = graph, given
        self._kinds = np.asarray(graph.kinds, int)
        width = graph.width()
        # A class with a worker for every task that can run at once stands as one worker that takes any number.
        self._crowded = (given.units < width) | (given.apart & (width > 1) & (given.units > 1))
        workers = np.where(self._crowded, np.minimum(given.units, width), 1).astype(int)
        self._class_of = np.repeat(np.arange(given.units.size), workers)
        self._n, self._workers = len(graph), self._class_of.size
        self._t = self._n * (self._workers + 1)
        reaches = graph.reaches()
        free = ~(reaches | reaches.T)
        self._pairs = [(t, u) for t in range(self._n) for u in range(t + 1, self._n) if free[t, u]]
        self._horizon_s = _latest_s(given, graph, deadline_s)
        self._rows = Rows()
        self._add_starts()
        for at, (t, u) in enumerate(self._pairs):
            self._add_order(t, u, self._t + 1 + at)
        self._add_symmetry()

    def _x(self, task: int, worker: int) -> int:
        return task * self._workers + worker

    def _s(self, task: int) -> int:
        return self._n * self._workers + task

    def _length(self, task: int) -> dict[int, float]:
        kind = self._kinds[task]
        return {
            self._x(task, w): float(self._given.length_s[kind, r]) / self._horizon_s
            for w, r in enumerate(self._class_of)
            if self._given.runs[kind, r]
        }

    def _add_starts(self) -> None:
        memories = [
            [w for w, r in enumerate(self._class_of) if not self._given.apart[r]],
            *([w] for w, r in enumerate(self._class_of) if self._given.apart[r]),
        ]
        for t, u, transfer_s in self._graph.ordered():
            ends = {**self._length(t), self._s(t): 1.0, self._s(u): -1.0}
            self._rows.add(ends)
            c = transfer_s / self._horizon_s
            for memory in memories if c > 0 and self._given.apart.any() else ():
                arrives = {self._x(task, w): own for task, own in ((u, c), (t, -c)) for w in memory}
                self._rows.add(sum_of(ends, arrives))
        for task in range(self._n):
            self._rows.add({**self._length(task), self._s(task): 1.0, self._t: -1.0})
        for r, units in enumerate(self._given.units):  # area: not needed, but it guides the search
            terms = {self._t: -float(units)}
            for task, kind in enumerate(self._kinds):
                for w in np.flatnonzero((self._class_of == r) & self._given.runs[kind, r]):
                    terms[self._x(task, int(w))] = float(self._given.length_s[kind, r]) / self._horizon_s
            self._rows.add(terms)

    def _add_order(self, t: int, u: int, order: int) -> None:
        """On one worker t ends before u starts (order 1) or u before t (order 0)."""
        for w, r in enumerate(self._class_of):
            if self._crowded[r] and self._given.runs[self._kinds[[t, u]], r].all():
                for first, second, sign, right in ((t, u, 1.0, 3.0), (u, t, -1.0, 2.0)):
                    terms = {**self._length(first), self._s(first): 1.0, self._s(second): -1.0, order: sign}
                    for task in (first, second):
                        terms[self._x(task, w)] = terms.get(self._x(task, w), 0.0) + 1.0
                    self._rows.add(terms, right)

    def _add_symmetry(self) -> None:
        """Of a class's workers one takes a task only after the worker before it has an earlier one."""
        for w in range(1, self._workers):
            if self._class_of[w] == self._class_of[w - 1]:
                for task in range(self._n):
                    earlier = {self._x(before, w - 1): -1.0 for before in range(task)}
                    self._rows.add({self._x(task, w): 1.0, **earlier})

    def solve(self, limit_s: float, relaxed_j: float) -> BestSchedule:
        """Return the best schedule found within the limit."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        columns = self._t + 1 + len(self._pairs)
        objective, upper = np.zeros(columns), np.ones(columns)
        equal = Rows()
        for task, kind in enumerate(self._kinds):
            equal.add({self._x(task, w): 1.0 for w in range(self._workers)}, 1.0)
            for w, r in enumerate(self._class_of):
                objective[self._x(task, w)] = self._given.energy_j[kind, r]
                upper[self._x(task, w)] = float(self._given.runs[kind, r])
        objective[self._t] = self._given.static_w * self._horizon_s
        scale = float(np.abs(objective).max()) or 1.0
        whole = np.ones(columns)
        whole[self._n * self._workers : self._t + 1] = 0
        for presolve in (True, False):  # HiGHS's presolve gives up on a few programs that it solves without
            solved: Any = milp(
                objective / scale,
                integrality=whole,
                bounds=Bounds(np.zeros(columns), upper),
                constraints=[
                    LinearConstraint(self._rows.matrix(columns), -np.inf, self._rows.right),
                    LinearConstraint(equal.matrix(columns), equal.right, equal.right),
                ],
                options={"time_limit": limit_s, "mip_rel_gap": GAP, "presolve": presolve},
            )
            if solved.status != SOLVE_ERROR:
                break
        if solved.status == 2:
            raise BoundError(
                f"no schedule of these {self._n} whole tasks ends by the deadline, {self._horizon_s:g} s"
            )
        if solved.x is None:
            raise BoundError(f"no schedule was found within limit_s={limit_s:g}: {solved.message}")
        return self._schedule(solved, scale, relaxed_j)

    def _schedule(self, solved: Any, scale: float, relaxed_j: float) -> BestSchedule:
        places = solved.x[: self._n * self._workers].reshape(self._n, self._workers).argmax(axis=1)
        classes = self._class_of[places]
        joules = float(self._given.energy_j[self._kinds, classes].sum())
        makespan_s = float(solved.x[self._t]) * self._horizon_s
        energy_j = joules + self._given.static_w * makespan_s
        dual_j = getattr(solved, "mip_dual_bound", None)
        proven_j = relaxed_j if dual_j is None else max(relaxed_j, dual_j * scale)
        starts_s = solved.x[self._n * self._workers : self._t] * self._horizon_s
        return BestSchedule(energy_j, makespan_s, min(proven_j, energy_j), classes, starts_s)
