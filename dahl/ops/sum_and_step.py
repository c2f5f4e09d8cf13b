"""Sum the gradients of all tiles and take one step of gradient descent, in one task."""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.handover import hand_over, whole_lines, whole_lines_compiled
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


@inline_kernel
def add_and_update(
    w: FloatArray,
    v: FloatArray,
    item: FloatArray,
    rates: Any,
    shared: bool,
    scratch: FloatArray,
    index: int,
    count: int,
) -> None:
    """Add gradient `item`, number `index` of `count`; with the last one, take the step.

    rates: learning rate, momentum, weight decay. shared: whether several cores read w next; not with one item.
    """
    size = w.size
    total, rest = scratch[:size], scratch[whole_lines_compiled(size) :]
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
    rate, kept, decay = np.float32(rates[0]), np.float32(rates[1]), np.float32(rates[2])
    if shared:
        for k in range(size):
            step = kept * v[k] + (gradient[k] + decay * w[k])
            v[k] = step
            total[k] = w[k] - rate * step
        hand_over(total, w)
    else:
        for k in range(size):
            step = kept * v[k] + (gradient[k] + decay * w[k])
            v[k] = step
            w[k] -= rate * step


def update_scratch(size: int, count: int) -> int:
    """Floats of scratch that `add_and_update` takes for so many weights and items."""
    return whole_lines(size) + branch_floats(count, size) if count > 1 else 0


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
    add_and_update(w, v, item, (learning_rate, momentum, weight_decay), count > 1, scratch, index, count)


def _check(shapes: Shapes, scalars: Scalars) -> None:
    require_shape("sum_and_step", "v", shapes["v"], shapes["w"], "w")
    for item in shapes["items"]:
        require_shape("sum_and_step", "an item", item, shapes["w"], "w")


def _cost(shapes: Shapes, scalars: Scalars) -> Cost:
    size, count = shapes["w"][0], len(shapes["items"])
    return Cost((count + 5.0) * size, FLOAT_BYTES * (count + 4.0) * size)


def _scratch(shapes: Shapes, scalars: Scalars) -> int:
    return update_scratch(shapes["w"][0], len(shapes["items"]))


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
