"""Two-dimensional convolution (cross-correlation, as in PyTorch), forward and backward to input and weight.

Stride 1 with few taps runs as vectorised loops (`conv2d_direct.py`),
the rest as matrix products (`conv2d_gemm.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.blas import load_blas
from dahl.ops.conv2d_cuda import program_backward_input, program_backward_weight, program_forward
from dahl.ops.conv2d_direct import (
    direct_backward_input,
    direct_backward_input_floats,
    direct_backward_weight,
    direct_backward_weight_floats,
    direct_forward,
    direct_forward_floats,
)
from dahl.ops.conv2d_gemm import gemm_backward_input, gemm_backward_weight, gemm_floats, gemm_forward
from dahl.ops.device import source
from dahl.ops.operation import (
    FLOAT_BYTES,
    Arrays,
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
from dahl.ops.simd import LANES
from dahl.starpu.kernel import Kernel, inline_kernel
from dahl.starpu.launch import CudaKernel

# Measured on one AVX-512 core: tile of 16 images 32x32, 1 to 16 channels, 4 to 64 filters, kernels 3x3 and
# 5x5. Direct loops take 0.1 to 1.0 of the time of the matrix product up to 72 taps, up to 1.2 of it at 100.
_DIRECT_TAPS = 128


def uses_direct_loops(taps: int, columns: int, stride: int) -> bool:
    """Whether direct loops compute rows of `columns` results from `taps` products each."""
    return stride == 1 and columns >= LANES and taps <= _DIRECT_TAPS


_uses_direct_loops = inline_kernel(uses_direct_loops)


def _conv2d(
    x: FloatArray, w: FloatArray, y: FloatArray, stride: int, padding: int, scratch: FloatArray
) -> None:
    if _uses_direct_loops(w.shape[1] * w.shape[2] * w.shape[3], y.shape[3], stride):
        direct_forward(x, w, y, padding, scratch)
    else:
        gemm_forward(x, w, y, stride, padding, scratch)


def _conv2d_backward_input(
    dy: FloatArray, w: FloatArray, dx: FloatArray, stride: int, padding: int, scratch: FloatArray
) -> None:
    if _uses_direct_loops(w.shape[0] * w.shape[2] * w.shape[3], dx.shape[3], stride):
        direct_backward_input(dy, w, dx, padding, scratch)
    else:
        gemm_backward_input(dy, w, dx, stride, padding, scratch)


def _conv2d_backward_weight(
    x: FloatArray, dy: FloatArray, dw: FloatArray, stride: int, padding: int, scratch: FloatArray
) -> None:
    if _uses_direct_loops(dw.shape[1] * dw.shape[2] * dw.shape[3], dy.shape[3], stride):
        direct_backward_weight(x, dy, dw, padding, scratch)
    else:
        gemm_backward_weight(x, dy, dw, stride, padding, scratch)


def convolved_shape(x: Shape, w: Shape, stride: int, padding: int, name: str = "conv2d") -> Shape:
    """Shape (N, F, H', W') of the convolution of x (N, C, H, W) with w (F, C, kh, kw).

    Raises ShapeError where the channels differ or the kernel is larger than the padded image.
    """
    require(stride >= 1, f"{name}: stride must be at least 1, got {stride}")
    require(padding >= 0, f"{name}: padding must not be negative, got {padding}")
    require(x[1] == w[1], f"{name}: {show(x)} has {x[1]} channels where the weights {show(w)} take {w[1]}")
    height, width = x[2] + 2 * padding, x[3] + 2 * padding
    fits = height >= w[2] and width >= w[3]
    require(fits, f"{name}: a kernel of {w[2]}x{w[3]} does not fit {show(x)} with padding {padding}")
    return x[0], w[0], (height - w[2]) // stride + 1, (width - w[3]) // stride + 1


def _check(name: str, x: str, w: str, y: str) -> Any:
    def check(shapes: Shapes, scalars: Scalars) -> None:
        stride, padding = int(scalars["stride"]), int(scalars["padding"])
        expected = convolved_shape(shapes[x], shapes[w], stride, padding, name)
        because = f"{x} {show(shapes[x])} with {w} {show(shapes[w])}, stride {stride} and padding {padding}"
        require_shape(name, y, shapes[y], expected, because)

    return check


def _cost(x: str, w: str, y: str) -> Any:
    def cost(shapes: Shapes, scalars: Scalars) -> Cost:
        flops = 2.0 * elements(shapes[y]) * elements(shapes[w][1:])
        return Cost(flops, FLOAT_BYTES * sum(elements(shapes[name]) for name in (x, w, y)))

    return cost


def _gemm_scratch(x: Shape, w: Shape, y: Shape, scalars: Scalars) -> int:
    width = x[3] + 2 * int(scalars["padding"])
    return gemm_floats(x[0], w[1], w[0], (y[2], y[3]), (w[2], w[3]), width, int(scalars["stride"]))


def _scratch_forward(shapes: Shapes, scalars: Scalars) -> int:
    x, w, y = shapes["x"], shapes["w"], shapes["y"]
    if uses_direct_loops(elements(w[1:]), y[3], int(scalars["stride"])):
        return direct_forward_floats(x[1:], int(scalars["padding"]))
    return _gemm_scratch(x, w, y, scalars)


def _scratch_backward_input(shapes: Shapes, scalars: Scalars) -> int:
    dx, w, dy = shapes["dx"], shapes["w"], shapes["dy"]
    filters, _, kh, kw = w
    if uses_direct_loops(filters * kh * kw, dx[3], int(scalars["stride"])):
        return direct_backward_input_floats(elements(w), filters, dx[2] + kh - 1, dx[3] + kw - 1)
    return _gemm_scratch(dx, w, dy, scalars)


def _scratch_backward_weight(shapes: Shapes, scalars: Scalars) -> int:
    x, dw, dy = shapes["x"], shapes["dw"], shapes["dy"]
    if uses_direct_loops(elements(dw[1:]), dy[3], int(scalars["stride"])):
        return direct_backward_weight_floats(elements(dw), x[1:], int(scalars["padding"]))
    return _gemm_scratch(x, dw, dy, scalars)


def _windows(x: Any, weights: Shape, scalars: Scalars) -> Any:
    """(N, C, H', W', kh, kw): the inputs of every output pixel."""
    stride, padding = int(scalars["stride"]), int(scalars["padding"])
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    view = np.lib.stride_tricks.sliding_window_view(padded, weights[2:], axis=(2, 3))
    return view[:, :, ::stride, ::stride]


def _reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    windows = _windows(inputs["x"], inputs["w"].shape, scalars)
    return {"y": np.einsum("ncijab,fcab->nfij", windows, inputs["w"], optimize=True)}


def _reference_backward_weight(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    windows = _windows(inputs["x"], inputs["dw"].shape, scalars)
    return {"dw": np.einsum("ncijab,nfij->fcab", windows, inputs["dy"], optimize=True)}


def _reference_backward_input(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    dy, w = inputs["dy"], inputs["w"]
    stride, padding = int(scalars["stride"]), int(scalars["padding"])
    n, c, height, width = inputs["dx"].shape
    padded = np.zeros((n, c, height + 2 * padding, width + 2 * padding))
    for a in range(w.shape[2]):
        for b in range(w.shape[3]):
            rows = slice(a, a + stride * dy.shape[2], stride)
            columns = slice(b, b + stride * dy.shape[3], stride)
            padded[:, :, rows, columns] += np.einsum("nfij,fc->ncij", dy, w[:, :, a, b], optimize=True)
    return {"dx": padded[:, :, padding : padding + height, padding : padding + width]}


_SCALARS = (("stride", "int64"), ("padding", "int64"))
_DEFAULTS = {"stride": 1, "padding": 0}


def _kernel(name: str, function: Any, first: str, second: str, out: str) -> Kernel:
    operands = (floats(first, "r", 4), floats(second, "r", 4), floats(out, "w", 4))
    return Kernel(name, function, operands, _SCALARS, scratch=True, load=load_blas)


CONV2D = Operation(
    _kernel("conv2d", _conv2d, "x", "w", "y"),
    _check("conv2d", "x", "w", "y"),
    _cost("x", "w", "y"),
    _reference,
    _scratch_forward,
    "conv",
    _DEFAULTS,
    cuda=CudaKernel(source("conv2d"), program_forward),
)
"""y = x * w: x (N, C, H, W), w (F, C, kh, kw), y (N, F, H', W').

H' = (H + 2 padding - kh) // stride + 1, W' likewise.
"""

CONV2D_BACKWARD_INPUT = Operation(
    _kernel("conv2d_backward_input", _conv2d_backward_input, "dy", "w", "dx"),
    _check("conv2d_backward_input", "dx", "w", "dy"),
    _cost("dx", "w", "dy"),
    _reference_backward_input,
    _scratch_backward_input,
    "conv",
    _DEFAULTS,
    cuda=CudaKernel(source("conv2d"), program_backward_input),
)
"""dx from dy and w, shapes as in CONV2D."""

CONV2D_BACKWARD_WEIGHT = Operation(
    _kernel("conv2d_backward_weight", _conv2d_backward_weight, "x", "dy", "dw"),
    _check("conv2d_backward_weight", "x", "dw", "dy"),
    _cost("x", "dw", "dy"),
    _reference_backward_weight,
    _scratch_backward_weight,
    "conv",
    _DEFAULTS,
    cuda=CudaKernel(source("conv2d"), program_backward_weight),
)
"""dw from x and dy, shapes as in CONV2D."""
