"""Convolution on a GPU: tiles of the product of matrices that `cuda/conv2d.cu` never makes.

Few filters or channels take flat tiles, so that few of the products are with nothing.
"""

from __future__ import annotations

from dahl.ops.device import Value, blocks, count, launched, sum_parts
from dahl.ops.operation import Scalars, Shape, Shapes, elements
from dahl.starpu.launch import Buffer, Program, Scratch

_FEW_ROWS = 16
_FEW_TAPS = 32
_PARTS_BLOCKS = (
    264  # two for each multiprocessor of an H100: a fixed number, so that every card adds up alike
)
_PART_PIXELS = 512  # fewest of a part


def _window(x: Shape, w: Shape, y: Shape, scalars: Scalars) -> tuple[int, ...]:
    for shape in (x, w, y):
        count(shape)
    return *x, *w[:1], *w[2:], *y[2:], int(scalars["stride"]), int(scalars["padding"])


def _tiles(function: str, rows: int, columns: int, *values: Value) -> Program:
    high, wide = (8, 256) if rows <= _FEW_ROWS else (64, 64)
    grid = blocks(columns, wide), blocks(rows, high), 1
    return Program((launched(f"{function}_{high}x{wide}", grid, (256, 1, 1), *values),))


def program_forward(shapes: Shapes, scalars: Scalars) -> Program:
    """CONV2D: filters by pixels, over taps."""
    x, w, y = shapes["x"], shapes["w"], shapes["y"]
    operands, window = (Buffer("x"), Buffer("w"), Buffer("y")), _window(x, w, y, scalars)
    return _tiles("conv2d", w[0], y[0] * elements(y[2:]), *operands, *window)


def program_backward_input(shapes: Shapes, scalars: Scalars) -> Program:
    """CONV2D_BACKWARD_INPUT: channels by pixels, over the filters' taps."""
    dx, w, dy = shapes["dx"], shapes["w"], shapes["dy"]
    operands, window = (Buffer("dy"), Buffer("w"), Buffer("dx")), _window(dx, w, dy, scalars)
    return _tiles("conv2d_backward_input", w[1], dx[0] * elements(dx[2:]), *operands, *window)


def program_backward_weight(shapes: Shapes, scalars: Scalars) -> Program:
    """CONV2D_BACKWARD_WEIGHT: filters by taps, over pixels in parts that are added up last."""
    x, dw, dy = shapes["x"], shapes["dw"], shapes["dy"]
    window = _window(x, dw, dy, scalars)
    filters, taps, pixels = dw[0], elements(dw[1:]), dy[0] * elements(dy[2:])
    high, wide = (8, 32) if filters <= _FEW_ROWS or taps <= _FEW_TAPS else (64, 64)
    tiles = blocks(filters, high) * blocks(taps, wide)
    parts = max(1, min(blocks(pixels, _PART_PIXELS), _PARTS_BLOCKS // tiles))
    share = blocks(pixels, parts)
    parts = blocks(pixels, share)
    operands = Buffer("x"), Buffer("dy"), Scratch(0)
    grid = blocks(taps, wide), blocks(filters, high), parts
    name = f"conv2d_backward_weight_{high}x{wide}"
    partial = launched(name, grid, (256, 1, 1), *operands, share, *window)
    size = elements(dw)
    return Program((partial, sum_parts(Scratch(0), Buffer("dw"), parts, size, size)), parts * size)
