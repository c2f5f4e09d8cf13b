"""Losses and right answers of a small network (`cnn_forward.py`) on one tile of images, in one task."""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.accuracy import ACCURACY
from dahl.ops.cnn_forward import (
    ARCHES,
    DEFAULTS,
    INPUTS,
    SCALARS,
    check,
    compiled_sizes,
    forward,
    micro_results,
    multiply_adds,
    scratch_floats,
    take,
)
from dahl.ops.image_lanes import cross_entropy_lanes
from dahl.ops.micro_tiles import MICRO_TILE
from dahl.ops.operation import (
    FLOAT_BYTES,
    Arrays,
    ByteArray,
    Cost,
    DoubleArray,
    FloatArray,
    IntArray,
    LongArray,
    Operation,
    Scalars,
    Shapes,
    elements,
)
from dahl.starpu.kernel import Kernel, Operand, inline_kernel


def _cnn_evaluation(
    images: ByteArray,
    labels: IntArray,
    order: LongArray,
    mean: FloatArray,
    std: FloatArray,
    w: FloatArray,
    losses: DoubleArray,
    correct: LongArray,
    first: int,
    index: int,
    count: int,
    filters: int,
    classes: int,
    scratch: FloatArray,
) -> None:
    if first < 0 or first + count > order.size:
        raise IndexError("cnn_evaluation: first and the tile's length reach outside order")
    sizes = compiled_sizes((images.shape[1], images.shape[2], images.shape[3]), filters, classes)
    logits, lane = take(scratch, sizes, 4), take(scratch, sizes, 7)
    numbers = take(scratch, sizes, 8).view(np.int64)
    for part in range((count + MICRO_TILE - 1) // MICRO_TILE):
        start, own = first + part * MICRO_TILE, min(MICRO_TILE, count - part * MICRO_TILE)
        forward(images, labels, order, mean, std, w, start, own, filters, classes, scratch)
        correct[index, part] = 0
        for n in range(own):
            correct[index, part] += _is_right(logits, classes, n, labels[numbers[n]])
        losses[index, part] = cross_entropy_lanes(logits, classes, labels, numbers, own, 1.0, lane)


@inline_kernel
def _is_right(logits: FloatArray, classes: int, n: int, label: int) -> int:
    """Whether the first largest logit stands at the label; a NaN is wrong."""
    best = 0
    known = True
    for c in range(classes):
        value = logits[c * MICRO_TILE + n]
        known &= value == value
        if value > logits[best * MICRO_TILE + n]:
            best = c
    return 1 if known and best == label else 0


def _cost_evaluation(shapes: Shapes, scalars: Scalars) -> Cost:
    convolution, linear = multiply_adds(shapes, scalars)
    count, length = float(scalars["count"]), shapes["w"][0]
    traffic = count * elements(shapes["images"][1:]) + FLOAT_BYTES * length
    return Cost(2 * count * (4 * convolution + linear), traffic)


def _reference_evaluation(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    losses, correct = inputs["losses"].copy(), inputs["correct"].copy()
    for part, found, loss in micro_results(inputs, scalars):
        losses[int(scalars["index"]), part] = loss
        correct[int(scalars["index"]), part] = ACCURACY.reference(found, {})["correct"][0]
    return {"losses": losses, "correct": correct}


CNN_EVALUATION = Operation(
    Kernel(
        "cnn_evaluation",
        _cnn_evaluation,
        (*INPUTS, Operand("losses", "rw", 2, "float64"), Operand("correct", "rw", 2, "int64")),
        SCALARS,
        scratch=True,
    ),
    check,
    _cost_evaluation,
    _reference_evaluation,
    scratch_floats,
    "conv",
    DEFAULTS,
    ARCHES,
)
"""The losses of CNN_STEP without a gradient, and correct[index, k]: how many of micro-tile k are classified right."""
