"""Recorded graphs and links as a policy that plans for single tasks sees them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dahl.starpu.errors import check
from dahl.starpu.policy import GraphLayout, LinkTimes
from dahl.starpu.task import Codelet, Costs, TaskGraph
from dahl.starpu.worker import Worker

if TYPE_CHECKING:
    from dahl.starpu.runtime import Runtime


def lay_out(graph: TaskGraph, times: int, workers: Sequence[Worker]) -> GraphLayout:
    """Return the layout of one graph."""
    tasks, accesses, order = graph.tasks(), graph.accesses(), graph.dependencies()
    rows: dict[tuple[int, int], int] = {}
    of_kind: list[tuple[Codelet, Costs | None]] = []
    kinds = []
    for task in tasks:
        key = task.codelet.id, id(task.costs)
        if key not in rows:
            rows[key] = len(of_kind)
            of_kind.append((task.codelet, task.costs))
        kinds.append(rows[key])
    data: dict[int, int] = {}
    sizes: list[int] = []
    used: list[tuple[tuple[int, bool, bool], ...]] = []
    for own in accesses:
        for handle, _ in own:
            if id(handle) not in data:
                data[id(handle)] = len(sizes)
                sizes.append(handle.array.nbytes)
        used.append(tuple((data[id(handle)], mode != "w", mode != "r") for handle, mode in own))
    unknown = np.full(len(workers), np.nan)
    return GraphLayout(
        graph.number,
        times,
        np.array(kinds, np.int64),
        np.array([[worker.arch in codelet.arches for worker in workers] for codelet, _ in of_kind]),
        np.array([costs.length_s if costs else unknown for _, costs in of_kind]),
        np.array([costs.energy_j if costs else unknown for _, costs in of_kind]),
        np.array(sizes or [0], np.int64),
        tuple(used),
        _before(order.within, len(tasks)),
        _before(order.following, len(tasks)),
    )


def link_times(runtime: Runtime) -> LinkTimes:
    """Return what StarPU knows of the links between the workers' memory nodes."""
    nodes = 1 + max((worker.memory_node for worker in runtime.workers), default=0)
    latency_s, s_per_byte = np.zeros((nodes, nodes)), np.zeros((nodes, nodes))
    latency, rate = runtime.ffi.new("double *"), runtime.ffi.new("double *")
    for source, target in itertools.permutations(range(nodes), 2):
        check(runtime.lib.dahl_link(source, target, latency, rate), "asking for a link")
        latency_s[source, target] = latency[0]
        s_per_byte[source, target] = 1 / rate[0] if rate[0] > 0 else np.nan
    return LinkTimes(latency_s, s_per_byte)


def _before(pairs: Mapping[tuple[int, int], Any], count: int) -> tuple[tuple[int, ...], ...]:
    found: list[list[int]] = [[] for _ in range(count)]
    for earlier, later in pairs:
        found[later].append(earlier)
    return tuple(map(tuple, found))
