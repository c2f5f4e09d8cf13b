"""Stochastic gradient descent with momentum and weight decay."""

from __future__ import annotations

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
from dahl.starpu.kernel import Kernel
from dahl.starpu.launch import Buffer, CudaKernel, Int32, Program, Scalar


def _sgd(
    w: FloatArray, v: FloatArray, g: FloatArray, learning_rate: float, momentum: float, weight_decay: float
) -> None:
    weights, velocity, gradient = w.reshape(w.size), v.reshape(v.size), g.reshape(g.size)
    rate, kept, decay = np.float32(learning_rate), np.float32(momentum), np.float32(weight_decay)
    for i in range(weights.size):
        step = kept * velocity[i] + (gradient[i] + decay * weights[i])
        velocity[i] = step
        weights[i] -= rate * step


def _cost(shapes: Shapes, scalars: Scalars) -> Cost:
    size = elements(shapes["w"])
    return Cost(6.0 * size, FLOAT_BYTES * 5 * size)


def _reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    gradient = inputs["g"] + scalars["weight_decay"] * inputs["w"]
    velocity = scalars["momentum"] * inputs["v"] + gradient
    return {"w": inputs["w"] - scalars["learning_rate"] * velocity, "v": velocity}


def _cuda(shapes: Shapes, scalars: Scalars) -> Program:
    size = count(shapes["w"])
    rates = Scalar("learning_rate"), Scalar("momentum"), Scalar("weight_decay")
    return Program((pointwise("sgd", size, Buffer("w"), Buffer("v"), Buffer("g"), Int32(size), *rates),))


def _operation(ndim: int) -> Operation:
    name = f"sgd_{ndim}d"

    def check(shapes: Shapes, scalars: Scalars) -> None:
        require_shape(name, "v", shapes["v"], shapes["w"], "w")
        require_shape(name, "g", shapes["g"], shapes["w"], "w")

    kernel = Kernel(
        name,
        _sgd,
        (floats("w", "rw", ndim), floats("v", "rw", ndim), floats("g", "r", ndim)),
        scalars=(("learning_rate", "float64"), ("momentum", "float64"), ("weight_decay", "float64")),
    )
    defaults, cuda = {"momentum": 0.0, "weight_decay": 0.0}, CudaKernel(source("sgd"), _cuda)
    return Operation(kernel, check, _cost, _reference, defaults=defaults, cuda=cuda)


SGD = {ndim: _operation(ndim) for ndim in (1, 2, 4)}
"""Number of dimensions -> v = momentum v + (g + weight_decay w), w = w - learning_rate v.

The formula of `torch.optim.SGD` without dampening and Nesterov; start from v = 0.
"""
