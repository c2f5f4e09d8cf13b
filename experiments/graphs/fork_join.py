"""Forks and joins, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from experiments.graphs.base import (
    FLOAT_BYTES,
    GraphDescription,
    GraphTask,
    GraphWorkload,
    TaskKind,
    check_count,
    square_kind,
)


@final
@dataclass(frozen=True, kw_only=True)
class ForkJoin(GraphWorkload):
    """``phases`` times: ``width`` products of ``tile_size`` x ``tile_size`` tiles, then one task that reads them all.

    The join is bound by memory and its result is what the next phase's products start from.
    """

    phases: int = 8
    width: int = 16
    tile_size: int = 512

    def __post_init__(self) -> None:
        check_count("phases", self.phases)
        check_count("width", self.width)
        check_count("tile_size", self.tile_size)

    def describe(self) -> GraphDescription:
        """Return the graph of phases * (width + 1) tasks. Data 0 is the joined tile, the others the products."""
        b = self.tile_size
        tile_bytes = FLOAT_BYTES * b * b
        joined = TaskKind("join", "memory", float(b * b * self.width), float(tile_bytes * (self.width + 1)))
        kinds = (square_kind("product", b, 2.0 * b**3, 3), joined)
        products = range(1, self.width + 1)
        phase = [GraphTask(0, ((at, "rw"), (0, "r"))) for at in products]
        phase.append(GraphTask(1, ((0, "rw"), *((at, "r") for at in products))))
        return GraphDescription(kinds, (tile_bytes,) * (self.width + 1), ((tuple(phase * self.phases), 1),))
