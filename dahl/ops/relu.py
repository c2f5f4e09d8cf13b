"""Rectified linear unit, forward and backward, each also in place; for 2-d and 4-d tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dahl.ops.device import count, pointwise, source
from dahl.ops.operation import (
    FLOAT_BYTES,
    Arrays,
    Cost,
    FloatArray,
    Operation,
    Scalars,
    Shapes,
    elements,
    floats,
    require_shape,
)
from dahl.starpu.kernel import Kernel, Operand
from dahl.starpu.launch import Buffer, CudaKernel, Int32, Program

# The comparisons are written so that a NaN takes the branch that keeps it.


def _relu(x: FloatArray, y: FloatArray) -> None:
    source, out = x.reshape(x.size), y.reshape(y.size)
    for i in range(out.size):
        value = source[i]
        out[i] = np.float32(0.0) if value < 0 else value


def _relu_in_place(y: FloatArray) -> None:
    out = y.reshape(y.size)
    for i in range(out.size):
        value = out[i]
        out[i] = np.float32(0.0) if value < 0 else value


def _relu_backward(y: FloatArray, dy: FloatArray, dx: FloatArray) -> None:
    outputs, gradient, out = y.reshape(y.size), dy.reshape(dy.size), dx.reshape(dx.size)
    for i in range(out.size):
        value = gradient[i]
        out[i] = np.float32(0.0) if outputs[i] <= 0 else value


def _relu_backward_in_place(y: FloatArray, dy: FloatArray) -> None:
    outputs, gradient = y.reshape(y.size), dy.reshape(dy.size)
    for i in range(gradient.size):
        value = gradient[i]
        gradient[i] = np.float32(0.0) if outputs[i] <= 0 else value


def _forward_reference(source: str) -> Callable[[Arrays, Scalars], dict[str, Any]]:
    return lambda inputs, scalars: {"y": np.maximum(inputs[source], 0.0)}


def _backward_reference(out: str) -> Callable[[Arrays, Scalars], dict[str, Any]]:
    return lambda inputs, scalars: {out: np.where(inputs["y"] <= 0, 0.0, inputs["dy"])}


def _cuda(function: str, *names: str) -> CudaKernel:
    """A function that takes the named operands in this order, and their size."""

    def program(shapes: Shapes, scalars: Scalars) -> Program:
        size = count(shapes[names[0]])
        return Program((pointwise(function, size, *map(Buffer, names), Int32(size)),))

    return CudaKernel(source("relu"), program)


def _operation(
    name: str, function: Callable[..., None], operands: tuple[Operand, ...], reference: Any, cuda: CudaKernel
) -> Operation:
    first = operands[0].name

    def check(shapes: Shapes, scalars: Scalars) -> None:
        for operand in operands[1:]:
            require_shape(name, operand.name, shapes[operand.name], shapes[first], first)

    def cost(shapes: Shapes, scalars: Scalars) -> Cost:
        size = elements(shapes[first])
        transfers = sum(len(operand.mode) for operand in operands)
        return Cost(size, FLOAT_BYTES * transfers * size)

    return Operation(Kernel(name, function, operands), check, cost, reference, cuda=cuda)


def _forward(ndim: int) -> Operation:
    operands = (floats("x", "r", ndim), floats("y", "w", ndim))
    cuda = _cuda("relu", "x", "y")
    return _operation(f"relu_{ndim}d", _relu, operands, _forward_reference("x"), cuda)


def _forward_in_place(ndim: int) -> Operation:
    operands, cuda = (floats("y", "rw", ndim),), _cuda("relu", "y", "y")
    return _operation(f"relu_in_place_{ndim}d", _relu_in_place, operands, _forward_reference("y"), cuda)


def _backward(ndim: int) -> Operation:
    operands = (floats("y", "r", ndim), floats("dy", "r", ndim), floats("dx", "w", ndim))
    cuda = _cuda("relu_backward", "y", "dy", "dx")
    return _operation(f"relu_backward_{ndim}d", _relu_backward, operands, _backward_reference("dx"), cuda)


def _backward_in_place(ndim: int) -> Operation:
    operands = (floats("y", "r", ndim), floats("dy", "rw", ndim))
    name, cuda = f"relu_backward_in_place_{ndim}d", _cuda("relu_backward", "y", "dy", "dy")
    return _operation(name, _relu_backward_in_place, operands, _backward_reference("dy"), cuda)


RELU = {ndim: _forward(ndim) for ndim in (2, 4)}
"""Number of dimensions -> y = max(x, 0), a NaN staying a NaN."""
RELU_IN_PLACE = {ndim: _forward_in_place(ndim) for ndim in (2, 4)}
"""Number of dimensions -> y = max(y, 0)."""
RELU_BACKWARD = {ndim: _backward(ndim) for ndim in (2, 4)}
"""Number of dimensions -> dx = dy where the output y was not 0, else 0."""
RELU_BACKWARD_IN_PLACE = {ndim: _backward_in_place(ndim) for ndim in (2, 4)}
"""Number of dimensions -> dy = 0 where the output y was 0."""
