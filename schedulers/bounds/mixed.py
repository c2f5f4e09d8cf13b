"""The mixed bound: the area bound with the order of a graph's tasks.

Tasks may still be cut between classes, but each starts after those that it follows, and what lies between two tasks
has to fit between them. A repeated graph is bound by the mean of its repetitions: start times and shares of all
repetitions, averaged, keep every one of its constraints, since they are linear.
Source: Agullo et al., CCPE 2016 (mixed bound); repetitions and the constraints between two tasks are this project's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from schedulers.bounds.area import area_bound
from schedulers.bounds.graph import Graph
from schedulers.bounds.instance import ROUNDING, BoundError, Instance, check_instance
from schedulers.bounds.rows import Rows, sum_of

MAX_ROUNDS = 40
CUTS_A_ROUND = 150
VIOLATED = 1e-6


@final
@dataclass(frozen=True)
class MixedBound:
    """``shares[g][t, r]``: how much of a task of graph g a class takes, on average over its repetitions.

    ``makespan_s`` is that of these shares: the shortest one for these joules, unless no second costs anything.
    """

    energy_j: float
    makespan_s: float
    shares: tuple[np.ndarray, ...]


def mixed_bound(
    graphs: Sequence[Graph],
    length_s: ArrayLike,
    energy_j: ArrayLike,
    units: ArrayLike,
    *,
    static_w: float,
    deadline_s: float = math.inf,
    parking_w: ArrayLike | None = None,
    cap_w: float = math.inf,
    apart: ArrayLike | None = None,
) -> MixedBound:
    """Return the least joules in which the graphs can be done by the deadline.

    For shares x_tr of task t on class r and start times s_t, with f_t = s_t + sum_r d_tr x_tr, T the makespan and N
    the repetitions: the area bound's program, and ``s_u >= f_t`` along edges, ``f_t - s_u <= T / N`` along edges to
    the next repetition, ``0 <= s_t``, ``f_t <= T``, and ``sum_v d_vr x_vr <= m_r (s_u - f_t)`` over the tasks v on
    the ways from t to u. The last kind is added only where a solution breaks it.

    ``apart`` tells of each class whether its workers have memories of their own, as GPUs have. Where an edge has a
    transfer of c_tu seconds, u starts after ``f_t + c_tu |X_u - X_t|``, X_t being the share of t on such classes: data
    that move between two GPUs of a class cost nothing in the bound.

    Of what a task t writes (the graph's ``versions``) class r needs ``y_r >= x_ur - x_tr`` copies for each reader u, so
    does main memory; all copies into r fit on the links of its m_r workers, ``sum seconds y_r <= m_r T``, and
    those into main memory on the links of all, and each takes its joules.

    Graphs share the workers and have no order among them. Other arguments and errors are those of ``area_bound``.
    """
    graphs, length_s, energy_j = _used_kinds(graphs, length_s, energy_j)
    given = check_instance(
        length_s, energy_j, units, static_w=static_w, parking_w=parking_w, cap_w=cap_w, apart=apart
    )
    program = _Program(graphs, given, deadline_s)
    solution = program.solve()
    for _ in range(MAX_ROUNDS):
        if solution is None or not program.cut(solution):
            break
        solution = program.solve()
    if solution is None:
        raise _infeasible(graphs, given, deadline_s)
    return program.bound(solution)


def least_graph_makespan_s(
    graphs: Sequence[Graph], length_s: ArrayLike, units: ArrayLike, *, apart: ArrayLike | None = None
) -> float:
    """Return the seconds that no schedule of the graphs beats; arguments as for ``mixed_bound``."""
    return mixed_bound(graphs, length_s, np.zeros_like(length_s), units, static_w=1.0, apart=apart).makespan_s


def _used_kinds(
    graphs: Sequence[Graph], length_s: ArrayLike, energy_j: ArrayLike
) -> tuple[list[Graph], np.ndarray, np.ndarray]:
    """The graphs and tables without the kinds of which there is no task."""
    if not graphs:
        raise ValueError("a bound needs at least one graph")
    used = np.unique(np.concatenate([np.asarray(graph.kinds, int) for graph in graphs]))
    lengths, energies = np.asarray(length_s, float), np.asarray(energy_j, float)
    if used[0] < 0 or used[-1] >= len(lengths):
        raise ValueError(
            f"a task is of kind {used[0 if used[0] < 0 else -1]}; length_s has {len(lengths)} kinds"
        )
    if energies.shape != lengths.shape:
        raise ValueError(f"energy_j has the shape {energies.shape}, length_s {lengths.shape}")
    renamed = [replace(graph, kinds=np.searchsorted(used, graph.kinds).tolist()) for graph in graphs]
    return renamed, lengths[used], energies[used]


def _infeasible(graphs: Sequence[Graph], given: Instance, deadline_s: float) -> BoundError:
    lengths = np.where(given.runs, given.length_s, np.nan)
    least_s = least_graph_makespan_s(graphs, lengths, given.units, apart=given.apart)
    if deadline_s * (1 + ROUNDING) < least_s:
        return BoundError(
            f"deadline_s={deadline_s:g} is before the least makespan of these graphs, {least_s:g} s"
        )
    counts = np.sum([graph.counts(len(lengths)) for graph in graphs], axis=0)
    area_bound(  # says it where the cap alone cannot be kept
        counts, lengths, given.energy_j, given.units, static_w=given.static_w, cap_w=given.cap_w
    )
    return BoundError(
        f"the tasks cannot be done within deadline_s={deadline_s:g} under cap_w={given.cap_w:g}; raise one of them"
    )


def _ways(graph: Graph) -> np.ndarray:
    """(n + 2, n + 2): 1 where there is a way from a task to another, or between it and the begin n or the end n + 1.

    Begin and end are those of all repetitions, so that they bound the tasks of a single one only.
    """
    n = len(graph)
    found = np.zeros((n + 2, n + 2))
    found[:n, :n] = graph.reaches() & ~np.eye(n, dtype=bool)
    if graph.repeats == 1:
        found[n, :n] = found[:n, n + 1] = 1.0
    return found


@final
class _Program:
    """The linear program: the shares of each graph's tasks, then their start times, then T, in units of time.

    Start times are in units of one repetition's work; T in those of all work.
    """

    def __init__(self, graphs: Sequence[Graph], given: Instance, deadline_s: float) -> None:
        self._graphs, self._given, self._deadline_s = graphs, given, deadline_s
        self._classes = given.units.size
        self._kinds = [np.asarray(graph.kinds, int) for graph in graphs]
        fastest_s = np.where(given.runs, given.length_s, np.inf).min(axis=1)
        self._round_s = [float(fastest_s[kinds].sum()) for kinds in self._kinds]
        self._unit_s = sum(s * graph.repeats for s, graph in zip(self._round_s, graphs, strict=True))
        sizes = [len(graph) * (self._classes + 1) for graph in graphs]
        self._first = np.cumsum([0, *sizes])
        self._t = self._last = int(self._first[-1])
        self._ways = [_ways(graph) for graph in graphs]
        self._cuts: set[tuple[int, int, int, int]] = set()
        self._rows = Rows()
        self._add_area()
        for g in range(len(graphs)):
            self._add_order(g)
        self._copy_j: dict[int, float] = {}
        if given.apart.any():
            self._add_copies()

    # ---- columns ----

    def _x(self, g: int, task: int, r: int) -> int:
        return int(self._first[g]) + task * self._classes + r

    def _s(self, g: int, task: int) -> int:
        return int(self._first[g]) + len(self._graphs[g]) * self._classes + task

    def _length(self, g: int, task: int, sign: float = 1.0) -> dict[int, float]:
        """sum_r d_tr x_tr, in units of a repetition."""
        kind = self._kinds[g][task]
        return {
            self._x(g, task, r): sign * self._given.length_s[kind, r] / self._round_s[g]
            for r in range(self._classes)
            if self._given.runs[kind, r]
        }

    # ---- rows ----

    def _add_area(self) -> None:
        for r in range(self._classes):
            terms = {self._t: -float(self._given.units[r])}
            for g, graph in enumerate(self._graphs):
                for task, kind in enumerate(self._kinds[g]):
                    if self._given.runs[kind, r]:
                        whole_s = graph.repeats * self._given.length_s[kind, r]
                        terms[self._x(g, task, r)] = whole_s / self._unit_s
            self._rows.add(terms)
        cap_w = self._given.cap_w
        if math.isfinite(cap_w):
            terms = {self._t: (self._given.static_w - cap_w) / cap_w}
            for g, task, r, joules in self._energies():
                terms[self._x(g, task, r)] = joules / self._unit_s / cap_w
            self._rows.add(terms)

    def _energies(self) -> Any:
        for g, graph in enumerate(self._graphs):
            for task, kind in enumerate(self._kinds[g]):
                for r in range(self._classes):
                    if self._given.runs[kind, r]:
                        yield g, task, r, graph.repeats * self._given.energy_j[kind, r]

    def _add_order(self, g: int) -> None:
        graph = self._graphs[g]
        for t, u, transfer_s in graph.ordered():
            for moved in self._moves(g, t, u, transfer_s):
                self._rows.add(sum_of({self._s(g, t): 1.0, self._s(g, u): -1.0}, self._length(g, t), moved))
        whole = self._unit_s / self._round_s[g]
        for task in range(len(graph)):
            self._rows.add({self._s(g, task): 1.0, **self._length(g, task), self._t: -whole})
        if graph.repeats > 1:
            for t, u, transfer_s in graph.next_ordered():
                ends = {self._t: -whole / graph.repeats, self._s(g, t): 1.0}
                # The first repetition moves nothing from one before it: that transfer is not paid.
                unpaid = transfer_s / self._round_s[g] / graph.repeats
                for moved in self._moves(g, t, u, transfer_s):
                    terms = sum_of(ends, {self._s(g, u): -1.0}, self._length(g, t), moved)
                    self._rows.add(terms, unpaid if moved else 0.0)

    def _moves(self, g: int, t: int, u: int, transfer_s: float) -> list[dict[int, float]]:
        """c (X_u - X_t) and c (X_t - X_u), of which the larger one is the time that moving takes."""
        apart = np.flatnonzero(self._given.apart)
        if not apart.size or transfer_s == 0 or t == u:
            return [{}]
        c = transfer_s / self._round_s[g]
        return [
            {self._x(g, task, int(r)): sign * own for task, own in ((u, c), (t, -c)) for r in apart}
            for sign in (1.0, -1.0)
        ]

    def _add_copies(self) -> None:
        """A column for the copies of each version in main memory and on each class with memories of its own."""
        own = [([int(r)], float(self._given.units[r])) for r in np.flatnonzero(self._given.apart)]
        shared = [int(r) for r in np.flatnonzero(~self._given.apart)]
        links = sum(count for _, count in own)
        for classes, width in [*own, (shared, links)]:
            busy = {self._t: -width}
            for g, graph in enumerate(self._graphs):
                for version in graph.versions if classes else ():
                    self._last += 1
                    busy[self._last] = graph.repeats * version.seconds / self._unit_s
                    self._copy_j[self._last] = graph.repeats * version.joules
                    for u, unpaid in (
                        *((u, 0.0) for u in version.readers),
                        *((u, 1.0 / graph.repeats) for u in version.next_readers),
                    ):
                        here = {self._x(g, u, r): 1.0 for r in classes}
                        there = {self._x(g, version.writer, r): -1.0 for r in classes}
                        self._rows.add(sum_of(here, there, {self._last: -1.0}), unpaid)
            if len(busy) > 1:
                self._rows.add(busy)

    def cut(self, solution: np.ndarray) -> bool:
        """Add the worst of the constraints between two tasks that a solution breaks; False where it breaks none."""
        found: list[tuple[float, int, int, int, int]] = []
        for g, way in enumerate(self._ways):
            n, first = len(self._graphs[g]), int(self._first[g])
            shares = solution[first : first + n * self._classes].reshape(n, self._classes)
            work = shares * self._given.length_s[self._kinds[g]] / self._round_s[g]
            start = solution[first + n * self._classes : int(self._first[g + 1])]
            # with the begin of the graph before its tasks and the end after them
            begins = np.array([*start, 0.0, solution[self._t] * self._unit_s / self._round_s[g]])
            ends = np.array(
                [*(start + work.sum(axis=1)), 0.0, 0.0]
            )  # nothing is before the begin or after the end
            room = begins[None, :] - ends[:, None]
            for r in range(self._classes):
                over = (way[:, :n] * work[:, r]) @ way[:n] / self._given.units[r] - room
                over[way == 0] = -1.0
                worst = np.flatnonzero(over > VIOLATED)
                worst = worst[np.argsort(over.flat[worst])[::-1][:CUTS_A_ROUND]]
                found += [(float(over.flat[at]), g, r, *divmod(int(at), n + 2)) for at in worst]
        found.sort(reverse=True)
        broken = [cut[1:] for cut in found[:CUTS_A_ROUND] if cut[1:] not in self._cuts]
        for g, r, t, u in broken:
            self._add_cut(g, r, t, u)
        self._cuts.update(broken)
        return bool(broken)

    def _add_cut(self, g: int, r: int, t: int, u: int) -> None:
        """What lies between t and u has to fit on class r after the end of t and before the start of u."""
        n, units, way = len(self._graphs[g]), float(self._given.units[r]), self._ways[g]
        terms: dict[int, float] = {}
        if t < n:
            terms |= {self._s(g, t): units, **self._length(g, t, units)}
        if u < n:
            terms[self._s(g, u)] = -units
        else:
            terms[self._t] = -units * self._unit_s / self._round_s[g]
        for v in np.flatnonzero((way[t, :n] > 0) & (way[:n, u] > 0)):
            kind = self._kinds[g][v]
            if self._given.runs[kind, r]:
                terms[self._x(g, int(v), r)] = float(self._given.length_s[kind, r]) / self._round_s[g]
        self._rows.add(terms)

    # ---- solving ----

    def solve(self) -> np.ndarray | None:
        """Return the variables of a solution; None where there is none."""
        from scipy.optimize import linprog

        columns = self._last + 1
        objective = np.zeros(columns)
        for g, task, r, joules in self._energies():
            objective[self._x(g, task, r)] = joules
        objective[self._t] = self._given.static_w * self._unit_s
        for column, joules in self._copy_j.items():
            objective[column] = joules
        scale = float(np.abs(objective).max()) or 1.0
        upper = np.full(columns, np.inf)
        equal = Rows()
        for g, kinds in enumerate(self._kinds):
            for task, kind in enumerate(kinds):
                equal.add({self._x(g, task, r): 1.0 for r in range(self._classes)}, 1.0)
                for r in range(self._classes):
                    upper[self._x(g, task, r)] = float(self._given.runs[kind, r])
        upper[self._t] = self._deadline_s * (1 + ROUNDING) / self._unit_s
        solved: Any = linprog(
            objective / scale,
            A_ub=self._rows.matrix(columns),
            b_ub=self._rows.right,
            A_eq=equal.matrix(columns),
            b_eq=equal.right,
            bounds=np.column_stack([np.zeros(columns), upper]),
            method="highs",
        )
        if solved.status == 2:
            return None
        if solved.x is None:
            raise BoundError(f"the solver found no bound: {solved.message}")
        variables: np.ndarray = solved.x
        return variables

    def bound(self, solution: np.ndarray) -> MixedBound:
        """The bound that a solution is."""
        makespan_s = float(solution[self._t]) * self._unit_s
        joules = sum(joules * solution[self._x(g, task, r)] for g, task, r, joules in self._energies())
        joules += sum(joules * solution[column] for column, joules in self._copy_j.items())
        shares = tuple(
            solution[first : first + len(graph) * self._classes].reshape(len(graph), self._classes)
            for first, graph in zip(self._first, self._graphs, strict=False)
        )
        return MixedBound(float(joules) + self._given.static_w * makespan_s, makespan_s, shares)
