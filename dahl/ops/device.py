"""What the launch programs of operations share: where the sources are, and grids for elements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dahl.ops.operation import Shape, elements, require
from dahl.starpu.launch import ITEMS_PER_LAUNCH, Address, Argument, Buffer, Int32, Launch

THREADS = 256
Value = Argument | int
_MOST_BLOCKS = 4096  # each thread then takes several elements
_MOST_ELEMENTS = 2**31 - 1 - _MOST_BLOCKS * THREADS  # the kernels count in int


def source(name: str) -> Path:
    """A file of CUDA C beside this one."""
    return Path(__file__).parent / "cuda" / f"{name}.cu"


def blocks(size: int, each: int) -> int:
    """Blocks of `each` that hold `size`."""
    return -(-size // each)


def count(shape: Shape) -> int:
    """Number of elements. Raises ShapeError where they are more than a kernel can count."""
    size = elements(shape)
    require(size <= _MOST_ELEMENTS, f"{size} elements are more than a GPU kernel takes ({_MOST_ELEMENTS})")
    return size


def launched(
    function: str,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    *values: Value,
    shared_bytes: int = 0,
) -> Launch:
    """A launch that passes each whole number as an int."""
    arguments = tuple(Int32(value) if isinstance(value, int) else value for value in values)
    return Launch(function, grid, block, arguments, shared_bytes)


def pointwise(function: str, size: int, *values: Value) -> Launch:
    """A launch with a thread for each element, or several elements to a thread."""
    grid = min(blocks(size, THREADS), _MOST_BLOCKS)
    return launched(function, (grid, 1, 1), (THREADS, 1, 1), *values)


def sum_parts(partial: Address, out: Buffer, parts: int, stride: int, size: int) -> Launch:
    """A launch of sum_parts.cuh."""
    return launched("sum_parts", (blocks(size, 32), 1, 1), (32, 16, 1), partial, out, parts, stride, size)


def by_items(items: Sequence[Shape]) -> list[tuple[int, int]]:
    """First item and number of items of each launch that a repeated operand takes."""
    starts = range(0, len(items), ITEMS_PER_LAUNCH)
    return [(first, min(ITEMS_PER_LAUNCH, len(items) - first)) for first in starts]
