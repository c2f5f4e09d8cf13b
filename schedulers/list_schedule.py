"""List schedules of a recorded graph, and looking for one of few joules by a deadline.

Every task has a worker and a rank, and each worker runs by rank.

The same rules as those of the placement policies' queues: a task that becomes ready joins the queue of its worker,
which is ordered by repetition and rank, and its data start to move there at once. Data come to a GPU one after the
other; a transfer between two GPUs keeps everything else from both, as in StarPU (transfers_are_sequential of its
core/simgrid.c). Left out: the runtime's microseconds, allocation of memory, data that are evicted or written back.

All of it is one file: Numba's disk cache does not notice a change of a function that is compiled in from another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np

ROUNDS = 3
"""Repetitions that are laid out: the third and those after it take as long as it does beside the second."""

PRICES = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
"""What a joule counts beside the seconds in which the idle machine draws one, for the schedules to start from."""
WARMEST, COLDEST = 1e-1, 1e-4
"""By what share a schedule may be worse than the last one, at first and in the end, to be taken at 1 / e."""
LATE = 1e3
"""How much a share of the deadline counts that a schedule comes late, beside the same share of its joules."""


class ListProblem(NamedTuple):
    """A graph with its repetitions laid out one after the other: task ``t`` of repetition ``r`` is ``r * tasks + t``.

    ``kinds`` is by task, ``waits`` by laid out task how many it waits for; its followers are
    ``after[after_from[at]:after_from[at + 1]]``. Task t's data are ``data[data_from[t]:data_from[t + 1]]``.
    """

    rounds: int
    times: int
    kinds: np.ndarray
    runs: np.ndarray
    length_s: np.ndarray
    energy_j: np.ndarray
    waits: np.ndarray
    after_from: np.ndarray
    after: np.ndarray
    data_from: np.ndarray
    data: np.ndarray
    reads: np.ndarray
    writes: np.ndarray
    data_bytes: np.ndarray
    node: np.ndarray
    latency_s: np.ndarray
    s_per_byte: np.ndarray


def list_problem(graph: Any, links: Any, nodes: Sequence[int]) -> ListProblem:
    """Return the problem of a ``dahl.starpu`` GraphLayout on workers with these memory nodes; links may be unknown."""
    n, rounds = len(graph.kinds), min(ROUNDS, graph.times)
    after: list[list[int]] = [[] for _ in range(n * rounds)]
    waits = np.zeros(n * rounds, np.int64)
    for r in range(rounds):
        for u in range(n):
            before = [r * n + t for t in graph.before[u]]
            before += [(r - 1) * n + t for t in graph.before_next[u]] if r else []
            waits[r * n + u] = len(before)
            for t in before:
                after[t].append(r * n + u)
    flat = [access for own in graph.accesses for access in own]
    columns = np.array(flat, np.int64).reshape(-1, 3)
    return ListProblem(
        rounds,
        graph.times,
        np.ascontiguousarray(graph.kinds, np.int64),
        np.ascontiguousarray(graph.can_run, np.bool_),
        np.where(graph.can_run, graph.length_s, 0.0),
        np.where(graph.can_run, graph.energy_j, 0.0),
        waits,
        np.cumsum([0, *map(len, after)]),
        np.array([u for follow in after for u in follow], np.int64),
        np.cumsum([0, *map(len, graph.accesses)]),
        np.ascontiguousarray(columns[:, 0]),
        np.ascontiguousarray(columns[:, 1] != 0),
        np.ascontiguousarray(columns[:, 2] != 0),
        np.ascontiguousarray(graph.data_bytes, np.float64),
        np.array(nodes, np.int64),
        np.nan_to_num(links.latency_s),
        np.nan_to_num(links.s_per_byte),
    )


def upward_s(problem: ListProblem) -> np.ndarray:
    """Return by task the longest way from its start to the end of one repetition, in mean lengths (HEFT's rank)."""
    n = len(problem.kinds)
    mean_s = np.where(problem.runs, problem.length_s, np.nan)
    levels: np.ndarray = np.nanmean(mean_s, axis=1)[problem.kinds]
    for t in range(n - 1, -1, -1):
        follow = problem.after[problem.after_from[t] : problem.after_from[t + 1]]
        levels[t] += max((levels[u] for u in follow if u < n), default=0.0)
    return levels


@numba.njit(cache=True)
def arrive_s(
    p: ListProblem, t: int, node: int, now_s: float, valid: Any, there_s: Any, in_s: Any, out_s: Any
) -> float:
    """When all that task t reads is on its node; moves what is not, and says so in ``valid`` and the links' times."""
    latest_s = now_s
    for at in range(p.data_from[t], p.data_from[t + 1]):
        if not p.reads[at]:
            continue
        d = p.data[at]
        if not valid[d, node]:
            source = 0
            while not valid[d, source]:
                source += 1
            takes_s = p.latency_s[source, node] + p.data_bytes[d] * p.s_per_byte[source, node]
            start_s = max(now_s, there_s[d, source], in_s[node] if node else out_s[source])
            if node and source:
                start_s = max(start_s, in_s[source])
                in_s[source] = start_s + takes_s
            if node:
                in_s[node] = start_s + takes_s
            else:
                out_s[source] = start_s + takes_s
            there_s[d, node] = start_s + takes_s
            valid[d, node] = True
        latest_s = max(latest_s, there_s[d, node])
    return latest_s


@numba.njit(cache=True)
def run_list(p: ListProblem, place: Any, rank: Any) -> tuple[float, float]:
    """Return seconds and joules net of idle of all repetitions; task t runs on ``place[t]``, higher ranks first."""
    n, total, count, nodes = p.kinds.size, p.waits.size, p.node.size, p.latency_s.shape[0]
    valid = np.zeros((p.data_bytes.size, nodes), np.bool_)
    valid[:, 0] = True
    there_s = np.zeros((p.data_bytes.size, nodes))
    in_s, out_s = np.zeros(nodes), np.zeros(nodes)
    waits, data_s = p.waits.copy(), np.zeros(total)
    first, following = np.full(count, -1), np.full(total, -1)
    running, end_s = np.full(count, -1), np.full(count, np.inf)
    round_s = np.zeros(p.rounds)
    ready = np.empty(total, np.int64)
    nready, now_s, left = 0, 0.0, total
    for at in range(total):
        if waits[at] == 0:
            ready[nready] = at
            nready += 1
    while left > 0:
        for i in range(nready):
            _join(p, ready[i], place, rank, first, following)
            t = ready[i] % n
            data_s[ready[i]] = arrive_s(p, t, p.node[place[t]], now_s, valid, there_s, in_s, out_s)
        soonest, soonest_s = -1, np.inf
        for w in range(count):
            if running[w] < 0 and first[w] >= 0:
                at = first[w]
                first[w] = following[at]
                running[w] = at
                end_s[w] = max(now_s, data_s[at]) + p.length_s[p.kinds[at % n], w]
            if end_s[w] < soonest_s:
                soonest, soonest_s = w, end_s[w]
        at, now_s = running[soonest], soonest_s
        running[soonest], end_s[soonest] = -1, np.inf
        left -= 1
        round_s[at // n] = max(round_s[at // n], now_s)
        _write(p, at % n, p.node[soonest], now_s, valid, there_s)
        nready = 0
        for k in range(p.after_from[at], p.after_from[at + 1]):
            waits[p.after[k]] -= 1
            if waits[p.after[k]] == 0:
                ready[nready] = p.after[k]
                nready += 1
    return _all_rounds_s(p, round_s), _joules(p, place)


@numba.njit(cache=True)
def _join(p: ListProblem, at: int, place: Any, rank: Any, first: Any, following: Any) -> None:
    """Put a laid out task into its worker's queue: by repetition, then by rank."""
    n = p.kinds.size
    w = place[at % n]
    before, other = -1, first[w]
    while other >= 0 and (
        other // n < at // n or (other // n == at // n and rank[other % n] >= rank[at % n])
    ):
        before, other = other, following[other]
    following[at] = other
    if before < 0:
        first[w] = at
    else:
        following[before] = at


@numba.njit(cache=True)
def _write(p: ListProblem, t: int, node: int, now_s: float, valid: Any, there_s: Any) -> None:
    """What a task has written is on its node only."""
    for k in range(p.data_from[t], p.data_from[t + 1]):
        if p.writes[k]:
            valid[p.data[k], :] = False
            valid[p.data[k], node] = True
            there_s[p.data[k], node] = now_s


@numba.njit(cache=True)
def _all_rounds_s(p: ListProblem, round_s: Any) -> float:
    """The end of all repetitions, those beyond the ones laid out at the pace of the last."""
    latest_s = 0.0
    for r in range(p.rounds):
        latest_s = max(latest_s, round_s[r])
    pace_s = latest_s - round_s[p.rounds - 2] if p.rounds > 1 else 0.0
    return latest_s + (p.times - p.rounds) * pace_s


@numba.njit(cache=True)
def _joules(p: ListProblem, place: Any) -> float:
    joules = 0.0
    for t in range(p.kinds.size):
        joules += p.energy_j[p.kinds[t], place[t]]
    return joules * p.times


# ---- the search ----


class ListSchedule(NamedTuple):
    """By task its worker and its rank, and what all repetitions take: seconds, and joules net of idle."""

    place: np.ndarray
    rank: np.ndarray
    makespan_s: float
    energy_j: float


def search_list(problem: ListProblem, static_w: float, slowdown: float, moves: int) -> ListSchedule:
    """Return the schedule of the fewest joules found within ``slowdown`` times the least makespan found.

    The joules are those of the tasks and ``static_w`` over the makespan. The same arguments give the same schedule.
    """
    starts = [_greedy(problem, upward_s(problem), static_w, price) for price in PRICES]
    fastest = _annealed(problem, starts, static_w, np.inf, 1e-3, moves)
    deadline_s = slowdown * fastest.makespan_s
    return _annealed(problem, [*starts, fastest], static_w, deadline_s, 1.0, moves)


def _annealed(
    problem: ListProblem,
    starts: list[ListSchedule],
    static_w: float,
    deadline_s: float,
    joule_weight: float,
    moves: int,
) -> ListSchedule:
    """Anneal from the best start. At a joule weight near 0 seconds decide."""
    costs = [
        cost_of(start.makespan_s, start.energy_j, static_w, deadline_s, joule_weight) for start in starts
    ]
    best = starts[int(np.argmin(costs))]
    place, rank = best.place.copy(), best.rank.copy()
    anneal(problem, place, rank, static_w, deadline_s, joule_weight, moves)
    return ListSchedule(place, rank, *run_list(problem, place, rank))


@numba.njit(cache=True)
def cost_of(
    makespan_s: float, energy_j: float, static_w: float, deadline_s: float, joule_weight: float
) -> float:
    """What the search lessens: joules, and what comes late."""
    cost_j = joule_weight * energy_j + static_w * makespan_s
    if makespan_s > deadline_s:
        cost_j += LATE * cost_j * (makespan_s / deadline_s - 1)
    return cost_j


def _greedy(problem: ListProblem, upward: np.ndarray, static_w: float, price: float) -> ListSchedule:
    place = np.zeros(len(problem.kinds), np.int64)
    order = np.argsort(-upward, kind="stable")
    _place_by_finish(problem, order, price / static_w if static_w > 0 else price, place)
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size, 0, -1)
    return ListSchedule(place, rank, *run_list(problem, place, rank))


@numba.njit(cache=True)
def _place_by_finish(p: ListProblem, order: Any, s_per_j: float, place: Any) -> None:
    """HEFT with a price on joules: in this order each task where its finish and its joules are least."""
    n = p.kinds.size
    free_s, ready_s = np.zeros(p.node.size), np.zeros(n)
    at_node = np.zeros(p.data_bytes.size, np.int64)
    for t in order:
        best, best_cost, best_end_s = -1, np.inf, 0.0
        for w in range(p.node.size):
            if not p.runs[p.kinds[t], w]:
                continue
            moves_s = 0.0
            for k in range(p.data_from[t], p.data_from[t + 1]):
                source = at_node[p.data[k]]
                if p.reads[k] and source != p.node[w]:
                    moves_s += (
                        p.latency_s[source, p.node[w]]
                        + p.data_bytes[p.data[k]] * p.s_per_byte[source, p.node[w]]
                    )
            end_s = max(free_s[w], ready_s[t] + moves_s) + p.length_s[p.kinds[t], w]
            cost = end_s + s_per_j * p.energy_j[p.kinds[t], w]
            if cost < best_cost:
                best, best_cost, best_end_s = w, cost, end_s
        place[t] = best
        free_s[best] = best_end_s
        for k in range(p.data_from[t], p.data_from[t + 1]):
            at_node[p.data[k]] = p.node[best]
        for k in range(p.after_from[t], p.after_from[t + 1]):
            if p.after[k] < n:
                ready_s[p.after[k]] = max(ready_s[p.after[k]], best_end_s)


# Numba's own generator, seeded by each search: compiled code draws from it, Python does not.


@numba.njit(cache=True)
def _begin_chance() -> None:
    np.random.seed(0)  # noqa: NPY002 - Numba compiles this one, and no Generator's seed


@numba.njit(cache=True)
def _chance() -> float:
    return np.random.random()  # noqa: NPY002 - Numba compiles this one, and no Generator's seed


@numba.njit(cache=True)
def _below(count: int) -> int:
    return np.random.randint(count)  # noqa: NPY002 - Numba compiles this one, and no Generator's seed


@numba.njit(cache=True)
def anneal(
    p: ListProblem,
    place: Any,
    rank: Any,
    static_w: float,
    deadline_s: float,
    joule_weight: float,
    moves: int,
) -> None:
    """Change ``place`` and ``rank`` for the better: simulated annealing (Kirkpatrick et al., Science 220, 1983)."""
    _begin_chance()
    n = p.kinds.size
    best_place, best_rank = place.copy(), rank.copy()
    tried_place, tried_rank = place.copy(), rank.copy()
    makespan_s, joules = run_list(p, place, rank)
    cost = cost_of(makespan_s, joules, static_w, deadline_s, joule_weight)
    best = cost
    for step in range(moves):
        if not _move(p, tried_place, tried_rank, n):
            continue
        makespan_s, joules = run_list(p, tried_place, tried_rank)
        tried = cost_of(makespan_s, joules, static_w, deadline_s, joule_weight)
        warm = WARMEST * (COLDEST / WARMEST) ** (step / moves)
        if tried <= cost or _chance() < np.exp((1 - tried / cost) / warm):
            place[:], rank[:], cost = tried_place, tried_rank, tried
            if cost < best:
                best_place[:], best_rank[:], best = place, rank, cost
        else:
            tried_place[:], tried_rank[:] = place, rank
    place[:], rank[:] = best_place, best_rank


@numba.njit(cache=True)
def _move(p: ListProblem, place: Any, rank: Any, n: int) -> bool:
    """Another worker for a task, another's worker, or another's rank; False where nothing changes."""
    t, u, kind = _below(n), _below(n), _chance()
    if kind < 0.4:
        w = _below(p.node.size)
        if w == place[t] or not p.runs[p.kinds[t], w]:
            return False
        place[t] = w
    elif kind < 0.7:
        mine, others = place[t], place[u]
        if mine == others or not p.runs[p.kinds[t], others]:
            return False
        if kind < 0.55:
            if not p.runs[p.kinds[u], mine]:
                return False
            place[u] = mine
        place[t] = others
    else:
        if t == u:
            return False
        rank[t], rank[u] = rank[u], rank[t]
    return True
