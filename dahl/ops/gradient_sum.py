"""Sum the gradients of all tiles, always in the order of the tiles."""

from __future__ import annotations

from typing import Any

from dahl.ops.device import by_items, count, pointwise, source
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
from dahl.starpu.launch import Buffer, CudaKernel, Items, Program


def _gradient_sum(total: FloatArray, item: FloatArray, index: int, count: int) -> None:
    out, source = total.reshape(total.size), item.reshape(item.size)
    if index == 0:
        for i in range(out.size):
            out[i] = source[i]
    else:
        for i in range(out.size):
            out[i] += source[i]


def _cost(shapes: Shapes, scalars: Scalars) -> Cost:
    size, count = elements(shapes["total"]), len(shapes["items"])
    return Cost((count - 1) * size, FLOAT_BYTES * (count + 1) * size)


def _reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    return {"total": sum(inputs["items"][1:], start=inputs["items"][0])}


def _cuda(shapes: Shapes, scalars: Scalars) -> Program:
    """A launch for every so many items."""
    size = count(shapes["total"])
    launches = [
        pointwise(
            "gradient_sum", size, Buffer("total"), Items("items", *part), part[1], size, int(part[0] == 0)
        )
        for part in by_items(shapes["items"])
    ]
    return Program(tuple(launches))


def _operation(ndim: int) -> Operation:
    name = f"gradient_sum_{ndim}d"

    def check(shapes: Shapes, scalars: Scalars) -> None:
        for item in shapes["items"]:
            require_shape(name, "an item", item, shapes["total"], "total")

    operands = (floats("total", "w", ndim), Operand("items", "r", ndim, repeated=True))
    cuda = CudaKernel(source("gradient_sum"), _cuda)
    return Operation(Kernel(name, _gradient_sum, operands), check, _cost, _reference, cuda=cuda)


GRADIENT_SUM = {ndim: _operation(ndim) for ndim in (1, 2, 4)}
"""Number of dimensions -> total = items[0] + items[1] + ... in that order, one rounding for each addition.

The order makes the result independent of which worker ran which tile, and when.
"""
