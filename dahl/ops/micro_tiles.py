"""Sums over micro-tiles of 16 images, in an order that does not depend on how a mini-batch is cut.

The sums form a binary tree over the micro-tiles of the mini-batch: two neighbours, two neighbouring pairs, and so on;
what is left over is added from the end. A tile of 16, 32, 64, ... images holds whole branches of it,
so that a task can add up its own and `sum_and_step` the tasks' results: the same bits for all these tiles,
and for mini-batches cut into several of these sizes, larger tiles before smaller ones.
"""

from __future__ import annotations

from dahl.ops.handover import whole_lines, whole_lines_compiled
from dahl.ops.operation import FloatArray
from dahl.starpu.kernel import inline_kernel

MICRO_TILE = 16
"""Images whose gradient is one sum; as many as a vector has lanes."""


def micro_tiles(images: int) -> int:
    """Number of micro-tiles of a tile; the last may be shorter."""
    return -(-images // MICRO_TILE)


def branch_floats(parts: int, floats: int) -> int:
    """Scratch for the branches of a sum of so many parts; the first stands in the result itself."""
    return (parts.bit_length() - 1) * whole_lines(floats)


@inline_kernel
def branch(total: FloatArray, scratch: FloatArray, depth: int) -> FloatArray:
    """Where the part number `depth` of those not yet added up stands."""
    if depth == 0:
        return total
    start = (depth - 1) * whole_lines_compiled(total.size)
    return scratch[start : start + total.size]


@inline_kernel
def add_branches(total: FloatArray, scratch: FloatArray, depth: int, done: int, last: bool) -> int:
    """Add up what can be, once `done` parts of the size of the last of `depth` are there; return how many are left."""
    while depth > 1 and (done % 2 == 0 or last):
        left, right = branch(total, scratch, depth - 2), branch(total, scratch, depth - 1)
        for k in range(left.size):
            left[k] += right[k]
        depth -= 1
        done //= 2
    return depth
