"""A whole training step of a small network on one tile of images, in one task; and its evaluation.

The network: convolution 3x3, ReLU, max-pooling by 2, linear layer. A vector is a value of 16 images (`image_lanes.py`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dahl.ops.cnn_step_cuda import CNN_EVALUATION_CUDA, CNN_STEP_CUDA, CNN_UPDATE_STEP_CUDA
from dahl.ops.handover import hand_over, whole_lines_compiled
from dahl.ops.image_lanes import (
    CLASS_BLOCK,
    convolve_pool,
    convolve_pool_gradient,
    cross_entropy_lanes,
    gather_lanes,
    linear_lanes,
    linear_weight_gradient,
    transpose_lanes,
)
from dahl.ops.micro_tiles import MICRO_TILE, add_branches, branch
from dahl.ops.network_step import NUMBERS_FLOATS, FusedNetwork, count_right, cut, find_images, pooled
from dahl.ops.operation import (
    ByteArray,
    DoubleArray,
    FloatArray,
    IntArray,
    LongArray,
    Scalars,
    Shape,
    require,
)
from dahl.ops.sum_and_step import add_and_update
from dahl.starpu.kernel import inline_kernel


class _Scratch(NamedTuple):
    """The parts of scratch, in the order of `_sizes`."""

    x: Any
    h: Any
    transposed: Any
    """h, with the images as rows."""
    places: Any
    """Where the largest of each window stood."""
    logits: Any
    row: Any
    """Gradients of a row of h."""
    sums: Any
    """A vector for each weight and bias of the convolution."""
    lane: Any
    numbers: Any
    rest: Any


def _sizes(image: Any, filters: int, classes: int) -> Any:
    channels, height, width = image
    columns = (width - 2) // 2
    inputs = (filters * ((height - 2) // 2) * columns + MICRO_TILE - 1) // MICRO_TILE * MICRO_TILE
    return (
        channels * height * width * MICRO_TILE,
        inputs * MICRO_TILE,
        inputs * MICRO_TILE,
        inputs,
        (classes + CLASS_BLOCK - 1) // CLASS_BLOCK * CLASS_BLOCK * MICRO_TILE,
        columns * MICRO_TILE,
        filters * (9 * channels + 1) * MICRO_TILE,
        MICRO_TILE,
        NUMBERS_FLOATS,
    )


_sizes_compiled = inline_kernel(_sizes)


@inline_kernel
def _views(scratch: FloatArray, image: Any, filters: int, classes: int) -> Any:
    sizes = _sizes_compiled(image, filters, classes)
    x, at = cut(scratch, 0, sizes[0])
    h, at = cut(scratch, at, sizes[1])
    transposed, at = cut(scratch, at, sizes[2])
    places, at = cut(scratch, at, sizes[3])
    logits, at = cut(scratch, at, sizes[4])
    row, at = cut(scratch, at, sizes[5])
    sums, at = cut(scratch, at, sizes[6])
    lane, at = cut(scratch, at, sizes[7])
    numbers, at = cut(scratch, at, sizes[8])
    places, numbers = places.view(np.int32), numbers.view(np.int64)
    return _Scratch(x, h, transposed, places, logits, row, sums, lane, numbers, scratch[at:])


@inline_kernel
def _parts(image: Any, filters: int, classes: int) -> Any:
    """Where each parameter ends in the vector, and the linear layer's inputs."""
    convolution = filters * 9 * image[0]
    inputs = filters * ((image[1] - 2) // 2) * ((image[2] - 2) // 2)
    linear = convolution + filters
    return convolution, linear, linear + classes * inputs, inputs


@inline_kernel
def _forward(
    images: ByteArray,
    labels: IntArray,
    order: LongArray,
    mean: FloatArray,
    std: FloatArray,
    w: FloatArray,
    first: int,
    count: int,
    filters: int,
    classes: int,
    parts: Any,
) -> None:
    """From a micro-tile's images to its logits, all in scratch."""
    image = (images.shape[1], images.shape[2], images.shape[3])
    numbers = parts.numbers
    find_images(labels, order, std, first, count, image[0] * image[1] * image[2], classes, numbers)
    gather_lanes(images, numbers[MICRO_TILE : 2 * MICRO_TILE], mean, std, parts.x)
    convolution, linear, bias, inputs = _parts(image, filters, classes)
    following = images.reshape(images.size), numbers[2 * MICRO_TILE : 3 * MICRO_TILE]
    own, own_bias = w[:convolution], w[convolution:linear]
    convolve_pool(parts.x, image, own, own_bias, parts.h, parts.places, following)
    linear_lanes(parts.h, inputs, w[linear:bias], w[bias:], parts.logits)


@inline_kernel
def _backward(
    image: Any, w: FloatArray, count: int, filters: int, classes: int, parts: Any, dw: FloatArray
) -> None:
    """From the gradient of a micro-tile's logits to that of all parameters."""
    dlogits = parts.logits
    dlogits[classes * MICRO_TILE :] = 0.0
    convolution, linear, bias, inputs = _parts(image, filters, classes)
    transpose_lanes(parts.h, inputs, parts.transposed)
    linear_weight_gradient(parts.transposed, inputs, dlogits, count, dw[linear:bias], dw[bias:])
    convolve_pool_gradient(
        parts.x,
        image,
        parts.h,
        parts.places,
        w[linear:bias],
        dlogits,
        classes,
        parts.row,
        parts.sums,
        dw[:convolution],
        dw[convolution:linear],
    )


def _cnn_step(
    images: ByteArray,
    labels: IntArray,
    order: LongArray,
    mean: FloatArray,
    std: FloatArray,
    w: FloatArray,
    dw: FloatArray,
    losses: DoubleArray,
    first: int,
    index: int,
    count: int,
    filters: int,
    classes: int,
    scale: float,
    scratch: FloatArray,
) -> None:
    if first < 0 or first + count > order.size:
        raise IndexError("cnn_step: first and the tile's length reach outside order")
    image = (images.shape[1], images.shape[2], images.shape[3])
    parts, micros, depth = _views(scratch, image, filters, classes), (count + MICRO_TILE - 1) // MICRO_TILE, 0
    for micro in range(micros):
        start, own = first + micro * MICRO_TILE, min(MICRO_TILE, count - micro * MICRO_TILE)
        _forward(images, labels, order, mean, std, w, start, own, filters, classes, parts)
        losses[index, micro] = cross_entropy_lanes(
            parts.logits, classes, labels, parts.numbers, own, scale, parts.lane
        )
        _backward(image, w, own, filters, classes, parts, branch(dw, parts.rest, depth))
        depth = add_branches(dw, parts.rest, depth + 1, micro + 1, micro == micros - 1)


_step_compiled = inline_kernel(_cnn_step)


def _cnn_update_step(
    images: ByteArray,
    labels: IntArray,
    order: LongArray,
    mean: FloatArray,
    std: FloatArray,
    ends: LongArray,
    w: FloatArray,
    v: FloatArray,
    dw: FloatArray,
    losses: DoubleArray,
    item: FloatArray,
    first: int,
    index: int,
    count: int,
    filters: int,
    classes: int,
    scale: float,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    pending: int,
    scratch: FloatArray,
    number: int,
    items: int,
) -> None:
    if pending != 0:
        rates = (learning_rate, momentum, weight_decay)
        add_and_update(ends, w, v, item, rates, False, scratch, number, items)
    if number < items - 1:
        return
    data = images, labels, order, mean, std
    if items == 1:
        _step_compiled(*data, w, dw, losses, first, index, count, filters, classes, scale, scratch)
    else:  # others read dw, too
        own, rest = scratch[: w.size], scratch[whole_lines_compiled(w.size) :]
        _step_compiled(*data, w, own, losses, first, index, count, filters, classes, scale, rest)
        hand_over(own, dw)


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
    image = (images.shape[1], images.shape[2], images.shape[3])
    parts = _views(scratch, image, filters, classes)
    for micro in range((count + MICRO_TILE - 1) // MICRO_TILE):
        start, own = first + micro * MICRO_TILE, min(MICRO_TILE, count - micro * MICRO_TILE)
        _forward(images, labels, order, mean, std, w, start, own, filters, classes, parts)
        correct[index, micro] = count_right(parts.logits, classes, labels, parts.numbers, own)
        losses[index, micro] = cross_entropy_lanes(
            parts.logits, classes, labels, parts.numbers, own, 1.0, parts.lane
        )


def _fits(image: Shape, scalars: Scalars) -> None:
    require(min(image[1:]) >= 4, f"cnn: images of {image[1]}x{image[2]} are too small, they need 4x4")


def _parameter_shapes(image: Shape, scalars: Scalars) -> list[Shape]:
    filters, classes = int(scalars["filters"]), int(scalars["classes"])
    rows, columns = pooled(*image[1:])
    return [(filters, image[0], 3, 3), (filters,), (classes, filters * rows * columns), (classes,)]


def _multiply_adds(image: Shape, scalars: Scalars) -> tuple[float, float]:
    """Forward four results of each window; backward one of them, and the linear layer twice."""
    rows, columns = pooled(*image[1:])
    windows = float(scalars["filters"]) * rows * columns
    linear = windows * float(scalars["classes"])
    return 4 * windows * 9 * image[0] + linear, windows * 9 * image[0] + 2 * linear


def _scratch(image: Shape, scalars: Scalars) -> int:
    return int(sum(_sizes(image, int(scalars["filters"]), int(scalars["classes"]))))


_NETWORK = FusedNetwork(
    "cnn",
    ("conv", "relu", "pool", "linear"),
    {"filters": 4, "classes": 10},
    _parameter_shapes,
    _multiply_adds,
    _scratch,
    _fits,
)
CNN_STEP = _NETWORK.step(_cnn_step, CNN_STEP_CUDA)
"""`FusedNetwork.step` of the network: conv.weight, conv.bias, linear.weight, linear.bias in w and dw."""
CNN_UPDATE_STEP = _NETWORK.update_step(_cnn_update_step, CNN_UPDATE_STEP_CUDA)
"""`FusedNetwork.update_step` of the network."""
CNN_EVALUATION = _NETWORK.evaluation(_cnn_evaluation, CNN_EVALUATION_CUDA)
"""`FusedNetwork.evaluation` of the network."""
