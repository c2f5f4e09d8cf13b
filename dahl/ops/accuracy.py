"""Count the rows of a tile whose largest logit is the label's."""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.device import count, launched, source
from dahl.ops.operation import (
    FLOAT_BYTES,
    Arrays,
    Cost,
    FloatArray,
    IntArray,
    LongArray,
    Operation,
    Scalars,
    Shapes,
    elements,
    floats,
    require_shape,
)
from dahl.starpu.kernel import Kernel, Operand
from dahl.starpu.launch import Buffer, CudaKernel, Failure, Program


def _accuracy(logits: FloatArray, labels: IntArray, correct: LongArray) -> None:
    count = 0
    for n in range(logits.shape[0]):
        row, label = logits[n], labels[n]
        if label < 0 or label >= row.size:
            raise ValueError("accuracy: a label is outside the classes")
        best = 0
        known = True
        for c in range(row.size):
            known &= row[c] == row[c]
            if row[c] > row[best]:
                best = c
        if known and best == label:
            count += 1
    correct[0] = count


def _check(shapes: Shapes, scalars: Scalars) -> None:
    require_shape("accuracy", "labels", shapes["labels"], shapes["logits"][:1], "logits")
    require_shape("accuracy", "correct", shapes["correct"], (1,), "a count over the tile")


def _cost(shapes: Shapes, scalars: Scalars) -> Cost:
    size = elements(shapes["logits"])
    return Cost(size, FLOAT_BYTES * (size + shapes["labels"][0]) + 8)


def _reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    known = ~np.isnan(inputs["logits"]).any(axis=1)
    right = inputs["logits"].argmax(axis=1) == inputs["labels"]
    return {"correct": np.array([(known & right).sum()])}


def _cuda(shapes: Shapes, scalars: Scalars) -> Program:
    count(shapes["logits"])
    operands = Buffer("logits"), Buffer("labels"), Buffer("correct")
    arguments = *operands, *shapes["logits"], Failure()
    return Program((launched("accuracy", (1, 1, 1), (256, 1, 1), *arguments),))


ACCURACY = Operation(
    Kernel(
        "accuracy",
        _accuracy,
        (floats("logits", "r", 2), Operand("labels", "r", 1, "int32"), Operand("correct", "w", 1, "int64")),
    ),
    _check,
    _cost,
    _reference,
    cuda=CudaKernel(source("accuracy"), _cuda),
)
"""correct = number of rows whose first largest logit stands at the label; a row with a NaN counts as wrong.

logits (N, classes), labels (N,), correct (1,) int64. A label outside the classes raises.
"""
