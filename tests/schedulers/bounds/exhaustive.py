"""Every schedule of a small graph: each placement on workers, in each order that the graph allows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from schedulers.bounds import Graph, Version


@dataclass(frozen=True)
class Small:
    """A random instance: ``figures`` are the arguments of the bounds after the graph."""

    graph: Graph
    figures: dict[str, Any]
    parking_w: np.ndarray
    versions: list[Version]
    """What the graph would hand on."""


def small(seed: int, tasks: int = 5, repeats: int = 1) -> Small:
    """Two classes of one or two workers, three kinds of which one may be for one class only, random edges."""
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.5, 5.0, (3, 2))
    if seed % 3 == 0:
        lengths[rng.integers(3), rng.integers(2)] = np.nan
    edges = [
        (t, u) for t in range(tasks) for u in range(t + 1, tasks) if rng.random() < rng.choice([0.1, 0.4])
    ]
    again = [(t, u) for t in range(tasks) for u in range(tasks) if repeats > 1 and rng.random() < 0.3]
    units = np.array([1, 1]) if repeats > 1 else rng.integers(1, 3, 2)
    figures = {
        "length_s": lengths,
        "energy_j": rng.uniform(0.0, 20.0, (3, 2)),
        "units": units,
        "static_w": float(rng.choice([0.0, 1.0, 10.0])),
    }
    parking_w = figures["static_w"] * np.array([0.5, 0.3]) / units
    kinds = rng.integers(0, 3, tasks).tolist()
    moved_s, moved_again_s = (
        rng.uniform(0.0, 3.0, len(edges)).tolist(),
        rng.uniform(0.0, 3.0, len(again)).tolist(),
    )
    drawn = {t: ([u for s, u in edges if s == t], [u for s, u in again if s == t]) for t in range(tasks)}
    versions = [
        Version(t, tuple(own), tuple(following), rng.uniform(0.0, 3.0), rng.uniform(0.0, 10.0))
        for t, (own, following) in drawn.items()
        if own or following
    ]
    return Small(Graph(kinds, edges, again, repeats, moved_s, moved_again_s), figures, parking_w, versions)


def unrolled(graph: Graph) -> Graph:
    """The repetitions as one graph."""
    n = len(graph)
    edges = [(t + i * n, u + i * n) for i in range(graph.repeats) for t, u in graph.edges]
    edges += [(t + i * n, u + (i + 1) * n) for i in range(graph.repeats - 1) for t, u in graph.next_edges]
    moved_s = list(graph.transfer_s) * graph.repeats + list(graph.next_transfer_s) * (graph.repeats - 1)
    return Graph(list(graph.kinds) * graph.repeats, edges, transfer_s=moved_s)


def copies_of(case: Small, memory: np.ndarray) -> tuple[float, float]:
    """Joules of all copies, and seconds of the busiest link; ``memory`` is by task of all repetitions, 0 the main."""
    n, repeats = len(case.graph), case.graph.repeats
    joules, in_s, out_s = 0.0, np.zeros(int(memory.max()) + 1), np.zeros(int(memory.max()) + 1)
    for version in case.versions:
        for i in range(repeats):
            readers = [u + i * n for u in version.readers]
            readers += [u + (i + 1) * n for u in version.next_readers] if i + 1 < repeats else []
            source = memory[version.writer + i * n]
            for target in {memory[u] for u in readers} - {source}:
                joules += version.joules
                in_s[target] += version.seconds
                out_s[source] += version.seconds
    return joules, max(in_s[1:].max(initial=0.0), out_s[1:].max(initial=0.0))


def every_schedule_with_copies(case: Small) -> np.ndarray:
    """(schedules, 2): joules and seconds at least, of links that carry one copy at a time; class 1 has own memories."""
    worker_class = np.repeat(np.arange(2), case.figures["units"])
    memory_of = np.where(worker_class == 1, 1 + np.arange(worker_class.size), 0)
    found, places = every_schedule(case, apart=True), every_place(case)
    copies = np.array([copies_of(case, memory_of[place]) for place in places])
    copies = np.tile(copies, (len(found) // len(places), 1))
    makespan_s = np.maximum(found[:, 2], copies[:, 1])
    joules = found[:, 0] + copies[:, 0] + case.figures["static_w"] * (makespan_s - found[:, 2])
    return np.column_stack([joules, makespan_s])


def every_place(case: Small) -> np.ndarray:
    """(places, tasks): each way to give the tasks of all repetitions to workers that can run them."""
    graph, worker_class = unrolled(case.graph), np.repeat(np.arange(2), case.figures["units"])
    places = np.array(list(itertools.product(range(worker_class.size), repeat=len(graph))))
    lengths = case.figures["length_s"][np.array(graph.kinds)][:, worker_class]
    kept: np.ndarray = places[~np.isnan(lengths[np.arange(len(graph)), places]).any(axis=1)]
    return kept


def every_schedule(case: Small, cap_w: float = np.inf, *, apart: bool = False) -> np.ndarray:
    """(schedules, 3): joules, joules where idle workers park, and seconds of each; those above the cap are left out.

    A schedule starts each task as soon as the graph and the tasks before it on its worker allow. With ``apart`` each
    worker of class 1 has a memory of its own, and what is read from another memory comes later.
    """
    graph, figures = unrolled(case.graph), case.figures
    kinds, worker_class = np.array(graph.kinds), np.repeat(np.arange(2), figures["units"])
    places, lengths = every_place(case), figures["length_s"][kinds][:, worker_class]
    before = np.full((len(graph), len(graph)), -1.0)
    for t, u, transfer_s in graph.ordered():
        before[u, t] = max(before[u, t], transfer_s if apart else 0.0)
    memory = np.where(worker_class == 1, 1 + np.arange(worker_class.size), 0)
    orders = [
        order
        for order in itertools.permutations(range(len(graph)))
        if all(order.index(t) < order.index(u) for t, u in graph.edges)
    ]
    energies = figures["energy_j"][kinds][:, worker_class]
    found = _schedules(np.array(orders), places, before, memory, lengths, energies)
    placed_j, busy_s, makespan_s, above_w = (
        found.T[0],
        found.T[1 : 1 + worker_class.size],
        found.T[-2],
        found.T[-1],
    )
    joules = placed_j + figures["static_w"] * makespan_s
    parked_j = joules - case.parking_w[worker_class] @ (makespan_s - busy_s)
    kept = above_w + figures["static_w"] <= cap_w
    return np.column_stack([joules, parked_j, makespan_s])[kept]


@numba.njit
def _schedules(orders: Any, places: Any, before: Any, memory: Any, lengths: Any, energies: Any) -> Any:
    """(orders * places, 3 + workers): joules of tasks, seconds of each worker, makespan, most watts above static.

    ``before[u, t]`` is how long after the end of t in another memory u can start, -1 where it need not wait for t.
    """
    n, workers = lengths.shape
    found = np.zeros((len(orders) * len(places), workers + 3))
    starts, ends, watts = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(len(orders)):
        for j in range(len(places)):
            row = found[i * len(places) + j]
            free_s = np.zeros(workers)
            for task in orders[i]:
                w = places[j, task]
                start_s = free_s[w]
                for t in range(n):
                    if before[task, t] >= 0:
                        moves = memory[places[j, t]] != memory[w]
                        start_s = max(start_s, ends[t] + (before[task, t] if moves else 0.0))
                starts[task], ends[task] = start_s, start_s + lengths[task, w]
                watts[task] = energies[task, w] / lengths[task, w]
                free_s[w] = ends[task]
                row[0] += energies[task, w]
                row[1 + w] += lengths[task, w]
            row[workers + 1] = free_s.max()
            for task in range(n):
                drawn_w = 0.0
                for t in range(n):
                    if starts[t] <= starts[task] < ends[t]:
                        drawn_w += watts[t]
                row[workers + 2] = max(row[workers + 2], drawn_w)
    return found
