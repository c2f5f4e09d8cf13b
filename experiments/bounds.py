"""What no schedule of an epoch beats on a simulated node, and how far a run is from it.

A simulated run leaves ``graph.json``: the tasks of an epoch with their order, what they take on each worker class, and
the watts around them. From it the bounds are computed again without any StarPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from dahl.context import Context
from dahl.starpu import Platform, TaskGraph
from dahl.starpu.dependencies import Dependencies
from energy import PowerModel
from experiments import records
from experiments.graphs import GraphDescription, GraphTask, TaskKind
from schedulers.bounds import (
    BestSchedule,
    FrontPoint,
    Graph,
    MixedBound,
    Version,
    best_schedule,
    energy_deadline_front,
    least_graph_makespan_s,
    mixed_bound,
)


@final
@dataclass(frozen=True)
class EpochWork:
    """The tasks of one epoch, and a node's workers and watts.

    ``length_s`` and ``energy_j`` are by kind of task and worker class, NaN where the class cannot run it; joules are
    net of idle. ``static_w`` is what the machine draws with every worker idle.
    """

    classes: tuple[str, ...]
    units: tuple[int, ...]
    static_w: float
    kinds: tuple[str, ...]
    length_s: tuple[tuple[float, ...], ...]
    energy_j: tuple[tuple[float, ...], ...]
    graphs: tuple[Graph, ...]
    """With the seconds that data take at least between main memory and a GPU's."""
    apart: tuple[bool, ...]
    """Whether the workers of a class have memories of their own, as GPUs have."""

    def least(self, deadline_s: float = math.inf, cap_w: float = math.inf) -> MixedBound:
        """The least joules of any schedule by the deadline and under the cap; BoundError where there is none."""
        return mixed_bound(
            self.graphs,
            self.length_s,
            self.energy_j,
            self.units,
            static_w=self.static_w,
            deadline_s=deadline_s,
            cap_w=cap_w,
            apart=self.apart,
        )

    @cached_property
    def least_s(self) -> float:
        """The seconds that no schedule beats."""
        return least_graph_makespan_s(self.graphs, self.length_s, self.units, apart=self.apart)

    @cached_property
    def least_j(self) -> float:
        """The joules that no schedule beats, however long it takes."""
        return self.least().energy_j

    def front(self, latest_s: float) -> list[FrontPoint]:
        """Least joules by deadline, from the least makespan to ``latest_s`` or where more time saves nothing."""

        def by_deadline(deadline_s: float) -> FrontPoint:
            bound = self.least(deadline_s)
            return FrontPoint(bound.makespan_s, bound.energy_j)

        return energy_deadline_front(
            by_deadline, self.least_s * (1 + 1e-6), max(latest_s, self.least_s * 1.01)
        )

    def best(self, deadline_s: float, limit_s: float) -> BestSchedule:
        """The best schedule found of one repetition of the only graph; see ``schedulers.bounds.best_schedule``."""
        (graph,) = self.graphs
        return best_schedule(
            graph,
            self.length_s,
            self.energy_j,
            self.units,
            static_w=self.static_w,
            deadline_s=deadline_s,
            apart=self.apart,
            limit_s=limit_s,
        )

    def controllable_j(self, joules: float) -> float:
        """Joules that placement can change: without the idle machine's over the least makespan.

        Every schedule pays these; the idle watts of a schedule that takes longer are its own doing.
        """
        return joules - self.static_w * self.least_s

    def ratios(self, joules: float | None) -> dict[str, float | None]:
        """How many times the least joules a run took, gross and controllable; None where either is not known."""
        if joules is None:
            return {"bound_ratio": None, "bound_ratio_controllable": None}
        least_j = self.controllable_j(self.least_j)
        return {
            "bound_ratio": joules / self.least_j if self.least_j > 0 else None,
            "bound_ratio_controllable": self.controllable_j(joules) / least_j if least_j > 0 else None,
        }

    def to_json(self) -> dict[str, Any]:
        """The work as JSON can hold it."""
        record = {key: value for key, value in asdict(self).items() if key != "graphs"}
        record["graphs"] = [
            {
                "kinds": list(graph.kinds),
                "edges": graph.edges,
                "next_edges": graph.next_edges,
                "repeats": graph.repeats,
                "transfer_s": graph.transfer_s,
                "next_transfer_s": graph.next_transfer_s,
                "versions": [asdict(version) for version in graph.versions],
            }
            for graph in self.graphs
        ]
        return record

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> EpochWork:
        """The work of such a record; null is NaN."""
        tables = {
            key: tuple(tuple(math.nan if value is None else value for value in row) for row in record[key])
            for key in ("length_s", "energy_j")
        }
        graphs = tuple(
            Graph(
                graph["kinds"],
                [(t, u) for t, u in graph["edges"]],
                [(t, u) for t, u in graph["next_edges"]],
                graph["repeats"],
                graph["transfer_s"],
                graph["next_transfer_s"],
                [_version(version) for version in graph.get("versions", ())],
            )
            for graph in record["graphs"]
        )
        return EpochWork(
            tuple(record["classes"]),
            tuple(record["units"]),
            record["static_w"],
            tuple(record["kinds"]),
            tables["length_s"],
            tables["energy_j"],
            graphs,
            tuple(record["apart"]),
        )


def _version(record: Mapping[str, Any]) -> Version:
    return Version(
        **{**record, "readers": tuple(record["readers"]), "next_readers": tuple(record["next_readers"])}
    )


def epoch_work(
    context: Context,
    graphs: Sequence[tuple[TaskGraph, int]],
    power: PowerModel,
    link_joule_per_byte: np.ndarray | None = None,
) -> EpochWork:
    """Return what recorded graphs, each submitted so many times, are on the context's workers.

    ``link_joule_per_byte`` is by memory node and memory node; None: moving data takes no joules.
    """
    workers = context.runtime.workers
    classes = tuple(dict.fromkeys(worker.worker_class for worker in workers))
    firsts = [next(w.id for w in workers if w.worker_class == name) for name in classes]
    units = tuple(sum(worker.worker_class == name for worker in workers) for name in classes)
    tables: dict[int, np.ndarray] = {}
    rows: dict[int, int] = {}
    found = []
    # The idle machine is one whose workers are parked; a policy's joules are those above a worker that is not.
    parked_w = np.array([power.workers[w].idle_w - power.workers[w].asleep_w for w in firsts])
    move_s = least_move_s(context.runtime.platform)
    for graph, times in graphs:
        kinds = []
        for task in graph.tasks():
            costs = task.costs
            assert costs is not None, "a simulated task has costs"
            if costs.footprint not in rows:
                rows[costs.footprint] = len(rows)
                tables[costs.footprint] = costs.actual[:, firsts]
            kinds.append(rows[costs.footprint])
        sizes = {id(handle): handle.array.nbytes for used in graph.accesses() for handle, _ in used}
        order = graph.dependencies()
        moves = [
            [move_s(sum(sizes[data] for data in read)) if read else 0.0 for read in pairs.values()]
            for pairs in (order.within, order.following)
        ]
        versions = _versions(order, sizes, context.runtime.platform, link_joule_per_byte)
        found.append(
            Graph(kinds, list(order.within), list(order.following), times, moves[0], moves[1], versions)
        )
    return EpochWork(
        classes,
        units,
        float(sum(power.idle_w.values())),
        tuple(context.footprints[footprint] for footprint in rows),
        tuple(tuple(tables[footprint][0].tolist()) for footprint in rows),
        tuple(tuple((tables[footprint][1] + tables[footprint][0] * parked_w).tolist()) for footprint in rows),
        tuple(found),
        tuple(next(w.arch for w in workers if w.worker_class == name) == "cuda" for name in classes),
    )


def least_move_s(platform: Platform | None) -> Callable[[int], float]:
    """How long so many bytes take at least from main memory to a GPU or back, by the best of the links."""
    links = [gpu.link for gpu in platform.gpus] if platform else []
    return lambda size: min(
        (link.latency_s + size / link.bandwidth_bytes_per_s for link in links), default=0.0
    )


def _versions(
    order: Dependencies,
    sizes: Mapping[int, int],
    platform: Platform | None,
    link_joule_per_byte: np.ndarray | None,
) -> list[Version]:
    """What tasks hand on, with the least that a copy takes of any GPU's links and of joules."""
    readers: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for which, pairs in enumerate((order.within, order.following)):
        for (t, u), read in pairs.items():
            for data in read:
                readers.setdefault((t, data), ([], []))[which].append(u)
    s_per_byte, joule_per_byte = 0.0, 0.0
    if platform and platform.gpus:
        peer = platform.peer_link.bandwidth_bytes_per_s if platform.peer_link else 0.0
        s_per_byte = 1 / max(gpu.link.bandwidth_bytes_per_s + peer for gpu in platform.gpus)
    if link_joule_per_byte is not None and len(link_joule_per_byte) > 1:
        joule_per_byte = float(link_joule_per_byte[~np.eye(len(link_joule_per_byte), dtype=bool)].min())
    return [
        Version(t, tuple(own), tuple(following), sizes[data] * s_per_byte, sizes[data] * joule_per_byte)
        for (t, data), (own, following) in readers.items()
    ]


def describe_graphs(context: Context, graphs: Sequence[tuple[TaskGraph, int]]) -> GraphDescription:
    """Return recorded graphs as ``workload=recorded`` takes them."""
    kinds: dict[int, TaskKind] = {}
    rows: dict[int, int] = {}
    data: dict[int, int] = {}
    sizes: list[int] = []
    parts = []
    for graph, times in graphs:
        tasks = []
        for task, accesses in zip(graph.tasks(), graph.accesses(), strict=True):
            costs = task.costs
            assert costs is not None, "a simulated task has costs"
            if costs.footprint not in rows:
                rows[costs.footprint] = len(rows)
                kind, work = context.work[costs.footprint]
                kinds[costs.footprint] = TaskKind(
                    task.codelet.name, kind, work.flops, work.bytes, task.codelet.arches
                )
            for handle, _ in accesses:
                if id(handle) not in data:
                    data[id(handle)] = len(sizes)
                    sizes.append(handle.array.nbytes)
            used = tuple((data[id(handle)], mode) for handle, mode in accesses)
            tasks.append(GraphTask(rows[costs.footprint], used))
        parts.append((tuple(tasks), times))
    return GraphDescription(tuple(kinds.values()), tuple(sizes), tuple(parts))


def write_graph(run_dir: Path, work: EpochWork, description: GraphDescription) -> None:
    """Leave ``graph.json`` in a run's folder."""
    records.write_json(run_dir / records.GRAPH_NAME, {"graph": description.to_json(), "work": work.to_json()})


def read_work(run_dir: Path) -> EpochWork:
    """Read the work of a simulated run's epoch."""
    return EpochWork.from_json(records.read_json(run_dir / records.GRAPH_NAME)["work"])
