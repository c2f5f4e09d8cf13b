"""Add a bias to every channel (4-d) or unit (2-d), in place; and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.device import blocks, count, launched, pointwise, source, sum_parts
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
from dahl.starpu.kernel import Kernel, inline_kernel
from dahl.starpu.launch import Buffer, CudaKernel, Program, Scratch

_PARTS = 64  # of a tile's images, each summed by a block of its own


@inline_kernel
def _add(row: FloatArray, value: float) -> None:
    for i in range(row.size):
        row[i] += value


@inline_kernel
def _sum(row: FloatArray) -> Any:
    total = np.float32(0.0)
    for i in range(row.size):
        total += row[i]
    return total


def _bias_4d(y: FloatArray, b: FloatArray) -> None:
    plane = y.shape[2] * y.shape[3]
    for n in range(y.shape[0]):
        for c in range(y.shape[1]):
            _add(y[n, c].reshape(plane), b[c])


def _bias_2d(y: FloatArray, b: FloatArray) -> None:
    for n in range(y.shape[0]):
        row = y[n]
        for c in range(b.size):
            row[c] += b[c]


def _bias_gradient_4d(dy: FloatArray, db: FloatArray) -> None:
    plane = dy.shape[2] * dy.shape[3]
    for c in range(db.size):
        total = 0.0  # float64 over the planes: a tile has tens of thousands of summands
        for n in range(dy.shape[0]):
            total += _sum(dy[n, c].reshape(plane))
        db[c] = total


def _bias_gradient_2d(dy: FloatArray, db: FloatArray) -> None:
    for c in range(db.size):
        db[c] = 0.0
    for n in range(dy.shape[0]):
        row = dy[n]
        for c in range(db.size):
            db[c] += row[c]


def _cuda_bias(shapes: Shapes, scalars: Scalars) -> Program:
    shape = shapes["y"]
    size = count(shape)
    sizes = size, shape[1], elements(shape[2:])
    return Program((pointwise("bias", size, Buffer("y"), Buffer("b"), *sizes),))


def _cuda_gradient_4d(shapes: Shapes, scalars: Scalars) -> Program:
    """Sums over some images each, then their sum."""
    images, channels = shapes["dy"][:2]
    count(shapes["dy"])
    share = blocks(images, _PARTS)
    parts = blocks(images, share)
    sizes = images, channels, elements(shapes["dy"][2:]), share
    grid, block = (channels, parts, 1), (256, 1, 1)
    partial = launched("bias_gradient", grid, block, Buffer("dy"), Scratch(0), *sizes)
    total = sum_parts(Scratch(0), Buffer("db"), parts, channels, channels)
    return Program((partial, total), parts * channels)


def _cuda_gradient_2d(shapes: Shapes, scalars: Scalars) -> Program:
    rows, units = shapes["dy"]
    count(shapes["dy"])
    grid, block = (blocks(units, 32), 1, 1), (32, 32, 1)
    return Program((launched("column_sums", grid, block, Buffer("dy"), Buffer("db"), rows, units),))


def _operations(ndim: int, forward: Any, backward: Any, cuda: Any) -> tuple[Operation, Operation]:
    name, gradient = f"bias_{ndim}d", f"bias_gradient_{ndim}d"

    def check(shapes: Shapes, scalars: Scalars) -> None:
        require_shape(name, "b", shapes["b"], shapes["y"][1:2], "y")

    def check_gradient(shapes: Shapes, scalars: Scalars) -> None:
        require_shape(gradient, "db", shapes["db"], shapes["dy"][1:2], "dy")

    def cost(shapes: Shapes, scalars: Scalars) -> Cost:
        size = elements(shapes["y"])
        return Cost(size, FLOAT_BYTES * (2 * size + shapes["b"][0]))

    def cost_gradient(shapes: Shapes, scalars: Scalars) -> Cost:
        size = elements(shapes["dy"])
        return Cost(size, FLOAT_BYTES * (size + shapes["db"][0]))

    def reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
        return {"y": inputs["y"] + inputs["b"].reshape(1, -1, *(1,) * (ndim - 2))}

    def reference_gradient(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
        return {"db": inputs["dy"].sum(axis=(0, *range(2, ndim)))}

    add = Kernel(name, forward, (floats("y", "rw", ndim), floats("b", "r", 1)))
    total = Kernel(gradient, backward, (floats("dy", "r", ndim), floats("db", "w", 1)))
    file = source("bias")
    return Operation(add, check, cost, reference, cuda=CudaKernel(file, _cuda_bias)), Operation(
        total, check_gradient, cost_gradient, reference_gradient, cuda=CudaKernel(file, cuda)
    )


BIAS_4D, BIAS_GRADIENT_4D = _operations(4, _bias_4d, _bias_gradient_4d, _cuda_gradient_4d)
"""y[n, c] += b[c] over (N, C, H, W) and (C,); db[c] = sum of dy[:, c]."""
BIAS_2D, BIAS_GRADIENT_2D = _operations(2, _bias_2d, _bias_gradient_2d, _cuda_gradient_2d)
"""y[n, c] += b[c] over (N, C) and (C,); db[c] = sum of dy[:, c]."""
