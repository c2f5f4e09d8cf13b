"""Softmax and cross-entropy loss in one pass, with or without the gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dahl.ops.device import blocks, count, launched, source
from dahl.ops.operation import (
    FLOAT_BYTES,
    Arrays,
    Cost,
    DoubleArray,
    FloatArray,
    IntArray,
    Operation,
    Scalars,
    Shapes,
    elements,
    floats,
    require_shape,
)
from dahl.starpu.kernel import Kernel, Operand, inline_kernel
from dahl.starpu.launch import Argument, Buffer, CudaKernel, Failure, Program, Scalar, Scratch

_FLOPS_PER_LOGIT = 10.0  # maximum, difference, exponential, sum, scale


@inline_kernel
def _largest(row: FloatArray) -> float:
    best = row[0]
    for c in range(1, row.size):
        best = max(row[c], best)
    return best


def _softmax_cross_entropy(
    logits: FloatArray, labels: IntArray, dlogits: FloatArray, loss: DoubleArray, scale: float
) -> None:
    total = 0.0
    for n in range(logits.shape[0]):
        row, gradient, label = logits[n], dlogits[n], labels[n]
        if label < 0 or label >= row.size:
            raise ValueError("softmax_cross_entropy: a label is outside the classes")
        largest = _largest(row)
        exponentials = 0.0
        for c in range(row.size):
            gradient[c] = np.exp(row[c] - largest)
            exponentials += gradient[c]
        total += math.log(exponentials) + (largest - row[label])
        factor = np.float32(scale / exponentials)
        for c in range(row.size):
            gradient[c] *= factor
        gradient[label] -= np.float32(scale)
    loss[0] = total


def _cross_entropy(logits: FloatArray, labels: IntArray, loss: DoubleArray) -> None:
    total = 0.0
    for n in range(logits.shape[0]):
        row, label = logits[n], labels[n]
        if label < 0 or label >= row.size:
            raise ValueError("cross_entropy: a label is outside the classes")
        largest = _largest(row)
        exponentials = 0.0
        for c in range(row.size):
            exponentials += np.exp(row[c] - largest)
        total += math.log(exponentials) + (largest - row[label])
    loss[0] = total


def _check_loss(name: str, shapes: Shapes) -> None:
    require_shape(name, "labels", shapes["labels"], shapes["logits"][:1], "logits")
    require_shape(name, "loss", shapes["loss"], (1,), "a sum over the tile")


def _check(shapes: Shapes, scalars: Scalars) -> None:
    _check_loss("softmax_cross_entropy", shapes)
    require_shape("softmax_cross_entropy", "dlogits", shapes["dlogits"], shapes["logits"], "logits")


def _check_evaluation(shapes: Shapes, scalars: Scalars) -> None:
    _check_loss("cross_entropy", shapes)


def _cost(shapes: Shapes, scalars: Scalars) -> Cost:
    size = elements(shapes["logits"])
    return Cost(_FLOPS_PER_LOGIT * size, FLOAT_BYTES * (2 * size + shapes["labels"][0]) + 8)


def _cost_evaluation(shapes: Shapes, scalars: Scalars) -> Cost:
    size = elements(shapes["logits"])
    return Cost(_FLOPS_PER_LOGIT * size, FLOAT_BYTES * (size + shapes["labels"][0]) + 8)


def _log_softmax(logits: Any) -> Any:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _reference_evaluation(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    logarithms, labels = _log_softmax(inputs["logits"]), inputs["labels"]
    return {"loss": np.array([-logarithms[np.arange(labels.size), labels].sum()])}


def _reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    gradient, labels = np.exp(_log_softmax(inputs["logits"])), inputs["labels"]
    gradient[np.arange(labels.size), labels] -= 1.0
    return {"dlogits": gradient * scalars["scale"], **_reference_evaluation(inputs, scalars)}


_ROWS = 64  # of a block, a thread each
_LOSS_FLOATS = 2  # a float64 in scratch


def _cuda(shapes: Shapes, function: str, *outputs: Argument) -> Program:
    """The loss of each row, then their sum."""
    rows, classes = shapes["logits"]
    count(shapes["logits"])
    more = (Scalar("scale"),) if outputs else ()
    operands = Buffer("logits"), Buffer("labels"), *outputs, Scratch(0)
    grid, block = (blocks(rows, _ROWS), 1, 1), (_ROWS, 1, 1)
    by_row = launched(function, grid, block, *operands, rows, classes, *more, Failure())
    total = launched("sum_losses", (1, 1, 1), (256, 1, 1), Scratch(0), Buffer("loss"), rows)
    return Program((by_row, total), _LOSS_FLOATS * rows)


def _cuda_gradient(shapes: Shapes, scalars: Scalars) -> Program:
    return _cuda(shapes, "softmax_cross_entropy", Buffer("dlogits"))


def _cuda_evaluation(shapes: Shapes, scalars: Scalars) -> Program:
    return _cuda(shapes, "cross_entropy")


SOFTMAX_CROSS_ENTROPY = Operation(
    Kernel(
        "softmax_cross_entropy",
        _softmax_cross_entropy,
        (
            floats("logits", "r", 2),
            Operand("labels", "r", 1, "int32"),
            floats("dlogits", "w", 2),
            Operand("loss", "w", 1, "float64"),
        ),
        scalars=(("scale", "float64"),),
    ),
    _check,
    _cost,
    _reference,
    cuda=CudaKernel(source("softmax_cross_entropy"), _cuda_gradient),
)
"""loss = sum of -log softmax(logits)[label], dlogits = scale * (softmax(logits) - one_hot(label)).

logits and dlogits (N, classes), labels (N,), loss (1,) float64, which `scale` does not touch.
With scale = 1 / batch the gradients of all tiles add up to that of the batch's mean loss.
A label outside the classes raises; a NaN in the logits makes the loss a NaN.
"""

CROSS_ENTROPY = Operation(
    Kernel(
        "cross_entropy",
        _cross_entropy,
        (floats("logits", "r", 2), Operand("labels", "r", 1, "int32"), Operand("loss", "w", 1, "float64")),
    ),
    _check_evaluation,
    _cost_evaluation,
    _reference_evaluation,
    cuda=CudaKernel(source("softmax_cross_entropy"), _cuda_evaluation),
)
"""The loss of SOFTMAX_CROSS_ENTROPY without the gradient: for evaluation."""
