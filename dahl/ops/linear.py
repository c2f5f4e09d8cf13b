"""Fully connected layer, forward and backward, by BLAS.

BLAS sees column-major matrices, so every row-major array below appears to it transposed.
"""

from __future__ import annotations

from typing import Any

from dahl.ops.blas import PLAIN, TRANSPOSED, load_blas, sgemm
from dahl.ops.operation import (
    FLOAT_BYTES,
    Arrays,
    Cost,
    FloatArray,
    Operation,
    Scalars,
    Shape,
    Shapes,
    floats,
    require_shape,
)
from dahl.starpu.kernel import Kernel
from dahl.starpu.launch import Buffer, CudaKernel, Gemm, Program


def _linear(x: FloatArray, w: FloatArray, y: FloatArray) -> None:
    count, inputs = x.shape
    units = w.shape[0]
    sgemm(TRANSPOSED, PLAIN, units, count, inputs, w, inputs, x, inputs, 0.0, y, units)


def _linear_backward_input(dy: FloatArray, w: FloatArray, dx: FloatArray) -> None:
    count, inputs = dx.shape
    units = w.shape[0]
    sgemm(PLAIN, PLAIN, inputs, count, units, w, inputs, dy, units, 0.0, dx, inputs)


def _linear_backward_weight(x: FloatArray, dy: FloatArray, dw: FloatArray) -> None:
    count, inputs = x.shape
    units = dw.shape[0]
    sgemm(PLAIN, TRANSPOSED, inputs, units, count, x, inputs, dy, units, 0.0, dw, inputs)


def _check(name: str, x: Any, x_name: str, w: Any, w_name: str, y: Any, y_name: str) -> None:
    require_shape(name, w_name, w, (w[0], x[1]), x_name)
    require_shape(name, y_name, y, (x[0], w[0]), f"{x_name} with {w_name}")


def _check_forward(shapes: Shapes, scalars: Scalars) -> None:
    _check("linear", shapes["x"], "x", shapes["w"], "w", shapes["y"], "y")


def _check_backward_input(shapes: Shapes, scalars: Scalars) -> None:
    _check("linear_backward_input", shapes["dx"], "dx", shapes["w"], "w", shapes["dy"], "dy")


def _check_backward_weight(shapes: Shapes, scalars: Scalars) -> None:
    _check("linear_backward_weight", shapes["x"], "x", shapes["dw"], "dw", shapes["dy"], "dy")


def _cost_of(x: Shape, units: int) -> Cost:
    count, inputs = x
    traffic = count * inputs + units * inputs + count * units
    return Cost(2.0 * count * inputs * units, FLOAT_BYTES * traffic)


def _cost_forward(shapes: Shapes, scalars: Scalars) -> Cost:
    return _cost_of(shapes["x"], shapes["w"][0])


def _cost_backward_input(shapes: Shapes, scalars: Scalars) -> Cost:
    return _cost_of(shapes["dx"], shapes["w"][0])


def _cost_backward_weight(shapes: Shapes, scalars: Scalars) -> Cost:
    return _cost_of(shapes["x"], shapes["dw"][0])


def _cuda(shapes: Shapes, scalars: Scalars) -> Program:
    (rows, inputs), units = shapes["x"], shapes["w"][0]
    operands = Buffer("x"), Buffer("w"), Buffer("y")
    return Program((Gemm(rows, units, inputs, *operands, inputs, inputs, units, transpose_b=True),))


def _cuda_backward_input(shapes: Shapes, scalars: Scalars) -> Program:
    (rows, inputs), units = shapes["dx"], shapes["w"][0]
    operands = Buffer("dy"), Buffer("w"), Buffer("dx")
    return Program((Gemm(rows, inputs, units, *operands, units, inputs, inputs),))


def _cuda_backward_weight(shapes: Shapes, scalars: Scalars) -> Program:
    (rows, inputs), units = shapes["x"], shapes["dw"][0]
    operands = Buffer("dy"), Buffer("x"), Buffer("dw")
    return Program((Gemm(units, inputs, rows, *operands, units, inputs, inputs, transpose_a=True),))


def _reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    return {"y": inputs["x"] @ inputs["w"].T}


def _reference_backward_input(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    return {"dx": inputs["dy"] @ inputs["w"]}


def _reference_backward_weight(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    return {"dw": inputs["dy"].T @ inputs["x"]}


LINEAR = Operation(
    Kernel(
        "linear", _linear, (floats("x", "r", 2), floats("w", "r", 2), floats("y", "w", 2)), load=load_blas
    ),
    _check_forward,
    _cost_forward,
    _reference,
    kind="gemm",
    cuda=CudaKernel(None, _cuda),
)
"""y = x w^T: x (N, inputs), w (units, inputs), y (N, units). The bias is an operation of its own."""

LINEAR_BACKWARD_INPUT = Operation(
    Kernel(
        "linear_backward_input",
        _linear_backward_input,
        (floats("dy", "r", 2), floats("w", "r", 2), floats("dx", "w", 2)),
        load=load_blas,
    ),
    _check_backward_input,
    _cost_backward_input,
    _reference_backward_input,
    kind="gemm",
    cuda=CudaKernel(None, _cuda_backward_input),
)
"""dx = dy w."""

LINEAR_BACKWARD_WEIGHT = Operation(
    Kernel(
        "linear_backward_weight",
        _linear_backward_weight,
        (floats("x", "r", 2), floats("dy", "r", 2), floats("dw", "w", 2)),
        load=load_blas,
    ),
    _check_backward_weight,
    _cost_backward_weight,
    _reference_backward_weight,
    kind="gemm",
    cuda=CudaKernel(None, _cuda_backward_weight),
)
"""dw = dy^T x."""
