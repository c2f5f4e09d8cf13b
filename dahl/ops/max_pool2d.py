"""Maximum over windows of each channel, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.device import count, pointwise, source
from dahl.ops.operation import (
    FLOAT_BYTES,
    Arrays,
    ByteArray,
    Cost,
    FloatArray,
    Operation,
    Scalars,
    Shape,
    Shapes,
    elements,
    floats,
    require,
    require_shape,
    show,
)
from dahl.ops.simd import largest_of_4, largest_of_8, spread_4, spread_8
from dahl.starpu.kernel import Kernel, Operand, inline_kernel
from dahl.starpu.launch import Buffer, CudaKernel, Program

_LARGEST_SIZE = 16  # the position inside a window is kept in a uint8


@inline_kernel
def _pool_row(
    plane: FloatArray, top: int, out: FloatArray, position: ByteArray, size: int, stride: int
) -> None:
    for j in range(out.size):
        left = j * stride
        best = plane[top, left]
        where = 0
        for a in range(size):
            for b in range(size):
                candidate = plane[top + a, left + b]
                if best == best and not (candidate <= best) and a + b > 0:
                    best = candidate
                    where = a * size + b
        out[j] = best
        position[j] = where


@inline_kernel
def _pool_by_two(plane: FloatArray, out: FloatArray, position: ByteArray) -> None:
    """Windows of 2x2 by eights or fours; the last ones of a row overlap those before them."""
    rows, columns = out.shape
    width = plane.shape[1]
    for i in range(rows):
        if columns >= 8:
            for block in range(0, columns, 8):
                j = min(block, columns - 8)
                top, to = 2 * (i * width + j), i * columns + j
                largest_of_8(plane, top, plane, top + width, out, to, position, to)
        else:
            for block in range(0, columns, 4):
                j = min(block, columns - 4)
                top, to = 2 * (i * width + j), i * columns + j
                largest_of_4(plane, top, plane, top + width, out, to, position, to)


def _max_pool2d(x: FloatArray, y: FloatArray, argmax: ByteArray, size: int, stride: int) -> None:
    for n in range(y.shape[0]):
        for c in range(y.shape[1]):
            if size == 2 and stride == 2 and y.shape[3] >= 4:
                _pool_by_two(x[n, c], y[n, c], argmax[n, c])
            else:
                for i in range(y.shape[2]):
                    _pool_row(x[n, c], i * stride, y[n, c, i], argmax[n, c, i], size, stride)


@inline_kernel
def _spread_by_two(gradient: FloatArray, position: ByteArray, plane: FloatArray) -> None:
    """The reverse of `_pool_by_two`."""
    rows, columns = gradient.shape
    height, width = plane.shape
    for i in range(rows):
        if columns >= 8:
            for block in range(0, columns, 8):
                j = min(block, columns - 8)
                at, top = i * columns + j, 2 * (i * width + j)
                spread_8(gradient, at, position, at, plane, top, plane, top + width)
        else:
            for block in range(0, columns, 4):
                j = min(block, columns - 4)
                at, top = i * columns + j, 2 * (i * width + j)
                spread_4(gradient, at, position, at, plane, top, plane, top + width)
        if 2 * columns < width:
            plane[2 * i, width - 1] = 0.0
            plane[2 * i + 1, width - 1] = 0.0
    if 2 * rows < height:
        plane[height - 1, :] = 0.0


@inline_kernel
def _spread_plane(
    gradient: FloatArray, position: ByteArray, plane: FloatArray, size: int, stride: int
) -> None:
    for i in range(plane.shape[0]):
        for j in range(plane.shape[1]):
            plane[i, j] = 0.0
    for i in range(gradient.shape[0]):
        for j in range(gradient.shape[1]):
            where = np.int64(position[i, j])
            plane[i * stride + where // size, j * stride + where % size] += gradient[i, j]


def _max_pool2d_backward(dy: FloatArray, argmax: ByteArray, dx: FloatArray, size: int, stride: int) -> None:
    for n in range(dy.shape[0]):
        for c in range(dy.shape[1]):
            if size == 2 and stride == 2 and dy.shape[3] >= 4:
                _spread_by_two(dy[n, c], argmax[n, c], dx[n, c])
            else:
                _spread_plane(dy[n, c], argmax[n, c], dx[n, c], size, stride)


def pooled_shape(shape: Shape, size: int, stride: int, name: str = "max_pool2d") -> Shape:
    """Shape (N, C, H', W') that windows of `size` every `stride` make of (N, C, H, W); what does not fill a
    window is left out. Raises ShapeError where no window fits."""
    require(1 <= size <= _LARGEST_SIZE, f"{name}: size must be 1 to {_LARGEST_SIZE}, got {size}")
    require(stride >= 1, f"{name}: stride must be at least 1, got {stride}")
    count, channels, height, width = shape
    require(min(height, width) >= size, f"{name}: a window of {size}x{size} does not fit {show(shape)}")
    return count, channels, (height - size) // stride + 1, (width - size) // stride + 1


def _check(name: str, large: str, small: str) -> Any:
    def check(shapes: Shapes, scalars: Scalars) -> None:
        size, stride = int(scalars["size"]), int(scalars["stride"])
        expected = pooled_shape(shapes[large], size, stride, name)
        because = f"{large} {show(shapes[large])} with size {size} and stride {stride}"
        require_shape(name, small, shapes[small], expected, because)
        require_shape(name, "argmax", shapes["argmax"], expected, because)

    return check


def _cost(shapes: Shapes, scalars: Scalars) -> Cost:
    size = elements(shapes["y"])
    return Cost(size * float(scalars["size"]) ** 2, FLOAT_BYTES * (elements(shapes["x"]) + size) + size)


def _cost_backward(shapes: Shapes, scalars: Scalars) -> Cost:
    size = elements(shapes["dy"])
    return Cost(size, FLOAT_BYTES * (elements(shapes["dx"]) + size) + size)


def _windows(x: Any, size: int, stride: int) -> Any:
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    return view.reshape(*view.shape[:4], size * size)


def _reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    windows = _windows(inputs["x"], int(scalars["size"]), int(scalars["stride"]))
    return {"y": windows.max(axis=-1), "argmax": windows.argmax(axis=-1)}


def _reference_backward(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    size, stride = int(scalars["size"]), int(scalars["stride"])
    n, c, i, j = np.indices(inputs["dy"].shape)
    dx = np.zeros(inputs["dx"].shape, np.float64)
    where = inputs["argmax"].astype(np.int64)
    np.add.at(dx, (n, c, i * stride + where // size, j * stride + where % size), inputs["dy"])
    return {"dx": dx}


def _cuda(function: str, large: str, small: str, names: tuple[str, ...], each: str) -> CudaKernel:
    """A function that takes the named operands, and a thread for each element of one of them."""

    def program(shapes: Shapes, scalars: Scalars) -> Program:
        window = int(scalars["size"]), int(scalars["stride"])
        count(shapes[large])
        size = elements(shapes[each])
        sizes = size, *shapes[large][2:], *shapes[small][2:], *window
        return Program((pointwise(function, size, *map(Buffer, names), *sizes),))

    return CudaKernel(source("max_pool2d"), program)


_SCALARS = (("size", "int64"), ("stride", "int64"))
_DEFAULTS = {"size": 2, "stride": 2}

MAX_POOL2D = Operation(
    Kernel(
        "max_pool2d",
        _max_pool2d,
        (floats("x", "r", 4), floats("y", "w", 4), Operand("argmax", "w", 4, "uint8")),
        _SCALARS,
    ),
    _check("max_pool2d", "x", "y"),
    _cost,
    _reference,
    defaults=_DEFAULTS,
    cuda=_cuda("max_pool2d", "x", "y", ("x", "y", "argmax"), "y"),
)
"""y = the largest of each window of x (the first NaN where there is one); argmax = its place in the window.

x (N, C, H, W); y and argmax (N, C, (H - size) // stride + 1, (W - size) // stride + 1).
argmax is row * size + column inside the window; equal values: the first in row order.
"""

MAX_POOL2D_BACKWARD = Operation(
    Kernel(
        "max_pool2d_backward",
        _max_pool2d_backward,
        (floats("dy", "r", 4), Operand("argmax", "r", 4, "uint8"), floats("dx", "w", 4)),
        _SCALARS,
    ),
    _check("max_pool2d_backward", "dx", "dy"),
    _cost_backward,
    _reference_backward,
    defaults=_DEFAULTS,
    cuda=_cuda("max_pool2d_backward", "dx", "dy", ("dy", "argmax", "dx"), "dx"),
)
"""dx = dy at the place that argmax names in each window, 0 elsewhere; where windows overlap they add up."""
