"""Random graphs in layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from experiments.graphs.base import (
    KINDS,
    GraphDescription,
    GraphError,
    GraphTask,
    GraphWorkload,
    TaskKind,
    check_count,
)

MAX_READS = 6


@final
@dataclass(frozen=True, kw_only=True)
class Layered(GraphWorkload):
    """``layers`` of ``width`` tasks; each task reads results of the layer before with a probability each, one at least.

    A task is of one of ``kinds`` kinds, which are conv, gemm and memory in turn with lognormal work around
    ``mean_mflop`` (memory tasks: as many bytes as others have flops, over 100). Everything is drawn from ``seed``; a
    task reads six results at most.
    Source: layer-by-layer graphs, Tobita and Kasahara, Journal of Scheduling 5(5), 2002.
    """

    layers: int = 12
    width: int = 16
    edge_probability: float = 0.2
    kinds: int = 6
    mean_mflop: float = 50.0
    data_kbyte: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "width", "kinds", "data_kbyte"):
            check_count(name, getattr(self, name))
        check_count("seed", self.seed, 0)
        if not 0 <= self.edge_probability <= 1:
            raise GraphError(f"workload.edge_probability must be from 0 to 1, got {self.edge_probability}")
        if not 0 < self.mean_mflop < float("inf"):
            raise GraphError(f"workload.mean_mflop must be above 0, got {self.mean_mflop}")

    def describe(self) -> GraphDescription:
        """Return the graph of layers * width tasks; data t is what task t writes."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        kinds = []
        for at in range(self.kinds):
            kind, work = KINDS[at % len(KINDS)], self.mean_mflop * 1e6 * float(rng.lognormal(0.0, 0.5))
            flops, traffic = (work / 100, work / 10) if kind == "memory" else (work, work / 100)
            kinds.append(TaskKind(f"{kind}_{at}", kind, flops, traffic))
        tasks = []
        for layer in range(self.layers):
            for at in range(self.width):
                own = layer * self.width + at
                reads = self._reads(layer, rng) if layer else []
                tasks.append(
                    GraphTask(int(rng.integers(self.kinds)), ((own, "w"), *((t, "r") for t in reads)))
                )
        count = self.layers * self.width
        return GraphDescription(tuple(kinds), (self.data_kbyte * 1000,) * count, ((tuple(tasks), 1),))

    def _reads(self, layer: int, rng: np.random.Generator) -> list[int]:
        first = (layer - 1) * self.width
        drawn = np.flatnonzero(rng.random(self.width) < self.edge_probability)
        one = int(rng.integers(self.width))
        chosen = drawn[:MAX_READS] if drawn.size else np.array([one])
        return [first + int(at) for at in chosen]
