"""Sum the gradients of all tiles and take one step of gradient descent, in one task."""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.micro_tiles import add_branches, branch, branch_floats
from dahl.ops.operation import (
    FLOAT_BYTES,
    Arrays,
    Cost,
    FloatArray,
    Operation,
    Scalars,
    Shapes,
    floats,
    require_shape,
)
from dahl.starpu.kernel import Kernel, Operand, inline_kernel


@inline_kernel
def _left_before(part: int) -> int:
    """How many sums are not yet added up before part number `part`: one for each bit of its number."""
    count = 0
    while part > 0:
        count += part & 1
        part >>= 1
    return count


def _sum_and_step(
    w: FloatArray,
    v: FloatArray,
    item: FloatArray,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    scratch: FloatArray,
    index: int,
    count: int,
) -> None:
    size = w.size
    total, rest = scratch[:size], scratch[size:]
    gradient = item
    if count > 1:
        depth = _left_before(index)
        part = branch(total, rest, depth)
        for k in range(size):
            part[k] = item[k]
        add_branches(total, rest, depth + 1, index, count)
        gradient = total
    if index < count - 1:
        return
    rate, kept, decay = np.float32(learning_rate), np.float32(momentum), np.float32(weight_decay)
    for k in range(size):
        step = kept * v[k] + (gradient[k] + decay * w[k])
        v[k] = step
        w[k] -= rate * step


def _check(shapes: Shapes, scalars: Scalars) -> None:
    require_shape("sum_and_step", "v", shapes["v"], shapes["w"], "w")
    for item in shapes["items"]:
        require_shape("sum_and_step", "an item", item, shapes["w"], "w")


def _cost(shapes: Shapes, scalars: Scalars) -> Cost:
    size, count = shapes["w"][0], len(shapes["items"])
    return Cost((count + 5.0) * size, FLOAT_BYTES * (count + 4.0) * size)


def _scratch(shapes: Shapes, scalars: Scalars) -> int:
    size, count = shapes["w"][0], len(shapes["items"])
    return size + branch_floats(count, size) if count > 1 else 0


def _reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    gradient = sum(inputs["items"]) + scalars["weight_decay"] * inputs["w"]
    velocity = scalars["momentum"] * inputs["v"] + gradient
    return {"w": inputs["w"] - scalars["learning_rate"] * velocity, "v": velocity}


SUM_AND_STEP = Operation(
    Kernel(
        "sum_and_step",
        _sum_and_step,
        (floats("w", "rw", 1), floats("v", "rw", 1), Operand("items", "r", 1, repeated=True)),
        scalars=(("learning_rate", "float64"), ("momentum", "float64"), ("weight_decay", "float64")),
        scratch=True,
    ),
    _check,
    _cost,
    _reference,
    _scratch,
    defaults={"momentum": 0.0, "weight_decay": 0.0},
)
"""v = momentum v + (sum of items + weight_decay w), w = w - learning_rate v; all of one size, 1-d.

The items are added as a binary tree (`micro_tiles.py`). Otherwise the formula of SGD.
"""
