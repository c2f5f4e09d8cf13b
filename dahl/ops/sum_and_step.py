"""Sum the gradients of all tiles and take one step of gradient descent, in one task."""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.device import by_items, count, pointwise, source
from dahl.ops.handover import copy_past_caches, whole_lines, whole_lines_compiled
from dahl.ops.micro_tiles import add_branches, branch, branch_floats
from dahl.ops.operation import (
    FLOAT_BYTES,
    Arrays,
    Cost,
    FloatArray,
    LongArray,
    Operation,
    Scalars,
    Shapes,
    elements,
    floats,
    require,
    require_shape,
)
from dahl.ops.simd import finish_stores
from dahl.starpu.kernel import Kernel, Operand, inline_kernel
from dahl.starpu.launch import (
    ITEMS_PER_LAUNCH,
    Buffer,
    CudaKernel,
    Items,
    Launch,
    Program,
    Scalar,
    Scratch,
)

ENDS = Operand("ends", "r", 1, "int64", constant=True)
BLOCK = 2048
"""Floats of three arrays that the first cache holds."""


@inline_kernel
def _left_before(start: int) -> int:
    """How many sums are not yet added up where a part starts: one for each bit of where."""
    count = 0
    while start > 0:
        count += start & 1
        start >>= 1
    return count


@inline_kernel
def _update(w: FloatArray, v: FloatArray, gradient: FloatArray, rates: Any) -> None:
    """One step of gradient descent."""
    rate, kept, decay = np.float32(rates[0]), np.float32(rates[1]), np.float32(rates[2])
    for k in range(w.size):
        step = kept * v[k] + (gradient[k] + decay * w[k])
        v[k] = step
        w[k] -= rate * step


@inline_kernel
def _update_into(gradient: FloatArray, w: FloatArray, v: FloatArray, rates: Any) -> None:
    """The same with the new w in the gradient's place. A target that may be either is no loop over vectors."""
    rate, kept, decay = np.float32(rates[0]), np.float32(rates[1]), np.float32(rates[2])
    for k in range(w.size):
        step = kept * v[k] + (gradient[k] + decay * w[k])
        v[k] = step
        gradient[k] = w[k] - rate * step


@inline_kernel
def _add(total: FloatArray, values: FloatArray) -> None:
    for k in range(total.size):
        total[k] += values[k]


@inline_kernel
def add_and_update(
    ends: LongArray,
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

    ends: as of SUM_AND_STEP. rates: learning rate, momentum, weight decay.
    shared: whether several cores read w next; not with one item.
    """
    if count == 1:
        _update(w, v, item, rates)
        return
    size = w.size
    total, rest = scratch[:size], scratch[whole_lines_compiled(size) :]
    start = ends[index - 1] if index > 0 else 0
    depth, done = _left_before(start), ends[index] // (ends[index] - start)
    if index < count - 1:
        if done % 2 == 0:
            _add(branch(total, rest, depth - 1), item)
            add_branches(total, rest, depth, done // 2, False)
        else:
            part = branch(total, rest, depth)
            for k in range(size):
                part[k] = item[k]
        return
    right = item
    while depth > 1:
        left = branch(total, rest, depth - 1)
        _add(left, right)
        right = left
        depth -= 1
    for at in range(0, size, BLOCK):  # which stays in the first cache from loop to loop
        end = min(at + BLOCK, size)
        gradient, own = total[at:end], w[at:end]
        _add(gradient, right[at:end])
        if shared:
            _update_into(gradient, own, v[at:end], rates)
            copy_past_caches(gradient, own)
        else:
            _update(own, v[at:end], gradient, rates)
    finish_stores()


def update_scratch(shapes: Shapes) -> int:
    """Floats of scratch that `add_and_update` takes for operands of these shapes."""
    size = shapes["w"][0]
    return whole_lines(size) + branch_floats(shapes["ends"][0], size) if len(shapes["items"]) > 1 else 0


def _sum_and_step(
    ends: LongArray,
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
    add_and_update(
        ends, w, v, item, (learning_rate, momentum, weight_decay), count > 1, scratch, index, count
    )


def _check(shapes: Shapes, scalars: Scalars) -> None:
    require_shape("sum_and_step", "v", shapes["v"], shapes["w"], "w")
    have, need = shapes["ends"][0], len(shapes["items"])
    require(have >= need, f"sum_and_step: ends has {have} entries for {need} items")
    for item in shapes["items"]:
        require_shape("sum_and_step", "an item", item, shapes["w"], "w")


def _cost(shapes: Shapes, scalars: Scalars) -> Cost:
    size, count = shapes["w"][0], len(shapes["items"])
    return Cost((count + 5.0) * size, FLOAT_BYTES * (count + 4.0) * size)


def _scratch(shapes: Shapes, scalars: Scalars) -> int:
    return update_scratch(shapes)


def _reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    gradient = sum(inputs["items"]) + scalars["weight_decay"] * inputs["w"]
    velocity = scalars["momentum"] * inputs["v"] + gradient
    return {"w": inputs["w"] - scalars["learning_rate"] * velocity, "v": velocity}


def update_launches(shapes: Shapes, scratch: int = 0) -> tuple[Launch, ...]:
    """The launches of the operation on a GPU; those of many items keep branches in scratch, from an offset on."""
    size, all_items = count(shapes["w"]), len(shapes["items"])
    target = Buffer("w"), Buffer("v"), Buffer("ends")
    rates = Scalar("learning_rate"), Scalar("momentum"), Scalar("weight_decay")
    return tuple(
        pointwise(
            "sum_and_step",
            size,
            *target,
            Items("items", *part),
            Scratch(scratch),
            *part,
            all_items,
            size,
            *rates,
        )
        for part in by_items(shapes["items"])
    )


def update_device_floats(shapes: Shapes) -> int:
    """Scratch of `update_launches`."""
    several = len(shapes["items"]) > ITEMS_PER_LAUNCH
    return int(shapes["ends"][0]).bit_length() * elements(shapes["w"]) if several else 0


def _cuda(shapes: Shapes, scalars: Scalars) -> Program:
    return Program(update_launches(shapes), update_device_floats(shapes))


SUM_AND_STEP = Operation(
    Kernel(
        "sum_and_step",
        _sum_and_step,
        (ENDS, floats("w", "rw", 1), floats("v", "rw", 1), Operand("items", "r", 1, repeated=True)),
        scalars=(("learning_rate", "float64"), ("momentum", "float64"), ("weight_decay", "float64")),
        scratch=True,
    ),
    _check,
    _cost,
    _reference,
    _scratch,
    defaults={"momentum": 0.0, "weight_decay": 0.0},
    cuda=CudaKernel(source("sum_and_step"), _cuda),
)
"""v = momentum v + (sum of items + weight_decay w), w = w - learning_rate v; all of one size, 1-d.

The items are added as a binary tree (`micro_tiles.py`): item k is the branch up to leaf ends[k]; 1, 2, 3, ... where all
are alike. There are as many `ends` as leaves; those without an item repeat the last one. Otherwise the formula of SGD.
"""
