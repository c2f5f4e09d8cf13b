"""Tiled Cholesky factorisation."""

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

POTRF, TRSM, SYRK, GEMM = range(4)


@final
@dataclass(frozen=True, kw_only=True)
class Cholesky(GraphWorkload):
    """The right-looking factorisation of a symmetric matrix of ``tiles`` x ``tiles`` float32 tiles of ``tile_size``.

    With b the tile's size: potrf b^3/3, trsm b^3, syrk b^3 and gemm 2 b^3 flops.
    Source: Buttari et al., Parallel Computing 35(1), 2009.
    """

    tiles: int = 10
    tile_size: int = 512

    def __post_init__(self) -> None:
        check_count("tiles", self.tiles)
        check_count("tile_size", self.tile_size)

    def describe(self) -> GraphDescription:
        """Return the graph: T (T + 1) (T + 2) / 6 tasks for T tiles."""
        b, cube = self.tile_size, float(self.tile_size) ** 3
        kinds = (
            square_kind("potrf", b, cube / 3, 2),
            square_kind("trsm", b, cube, 3),
            square_kind("syrk", b, cube, 3),
            square_kind("gemm", b, 2 * cube, 4),
        )
        at = {(i, j): i * (i + 1) // 2 + j for i in range(self.tiles) for j in range(i + 1)}
        tasks = []
        for k in range(self.tiles):
            tasks.append(GraphTask(POTRF, ((at[k, k], "rw"),)))
            tasks += [GraphTask(TRSM, ((at[i, k], "rw"), (at[k, k], "r"))) for i in range(k + 1, self.tiles)]
            for i in range(k + 1, self.tiles):
                tasks.append(GraphTask(SYRK, ((at[i, i], "rw"), (at[i, k], "r"))))
                tasks += [
                    GraphTask(GEMM, ((at[i, j], "rw"), (at[i, k], "r"), (at[j, k], "r")))
                    for j in range(k + 1, i)
                ]
        return GraphDescription(kinds, (FLOAT_BYTES * b * b,) * len(at), ((tuple(tasks), 1),))
