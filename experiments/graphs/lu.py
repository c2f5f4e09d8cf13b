"""Tiled LU factorisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from experiments.graphs.base import (
    FLOAT_BYTES,
    GraphDescription,
    GraphTask,
    GraphWorkload,
    check_count,
    square_kind,
)

GETRF, TRSM, GEMM = range(3)


@final
@dataclass(frozen=True, kw_only=True)
class Lu(GraphWorkload):
    """The right-looking factorisation, without pivoting, of ``tiles`` x ``tiles`` float32 tiles of ``tile_size``.

    With b the tile's size: getrf 2 b^3/3, trsm b^3 and gemm 2 b^3 flops.
    Source: Buttari et al., Parallel Computing 35(1), 2009.
    """

    tiles: int = 8
    tile_size: int = 512

    def __post_init__(self) -> None:
        check_count("tiles", self.tiles)
        check_count("tile_size", self.tile_size)

    def describe(self) -> GraphDescription:
        """Return the graph: T (T + 1) (2 T + 1) / 6 tasks for T tiles."""
        b, cube, size = self.tile_size, float(self.tile_size) ** 3, self.tiles
        kinds = (
            square_kind("getrf", b, 2 * cube / 3, 2),
            square_kind("trsm", b, cube, 3),
            square_kind("gemm", b, 2 * cube, 4),
        )
        tasks = []
        for k in range(size):
            tasks.append(GraphTask(GETRF, ((k * size + k, "rw"),)))
            rest = range(k + 1, size)
            tasks += [GraphTask(TRSM, ((k * size + j, "rw"), (k * size + k, "r"))) for j in rest]
            tasks += [GraphTask(TRSM, ((i * size + k, "rw"), (k * size + k, "r"))) for i in rest]
            tasks += [
                GraphTask(GEMM, ((i * size + j, "rw"), (i * size + k, "r"), (k * size + j, "r")))
                for i in rest
                for j in rest
            ]
        return GraphDescription(kinds, (FLOAT_BYTES * b * b,) * size**2, ((tuple(tasks), 1),))
