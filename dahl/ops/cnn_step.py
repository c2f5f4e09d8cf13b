"""A whole training step of a small network on one tile of images, in one task; and its evaluation.

The network: convolution 3x3, ReLU, max-pooling by 2, linear layer. A vector is a value of 16 images (`image_lanes.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

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
from dahl.ops.network_step import NUMBERS_FLOATS, FusedNetwork, count_right, find_images, pooled, sum_of, take
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
from dahl.starpu.kernel import inline_kernel

# Parts of scratch, by their position in `_sizes`: pixels; activations; the same, transposed; where the largest of each
# window stood; logits; gradients of a row; sums for each weight and bias; a vector; numbers of images.
_X, _H, _TRANSPOSED, _PLACES, _LOGITS, _ROW, _SUMS, _LANE, _NUMBERS = range(9)


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
    scratch: FloatArray,
) -> None:
    """From a micro-tile's images to its logits, all in scratch."""
    image = (images.shape[1], images.shape[2], images.shape[3])
    sizes = _sizes_compiled(image, filters, classes)
    numbers = take(scratch, sizes, _NUMBERS).view(np.int64)
    find_images(labels, order, std, first, count, image[0] * image[1] * image[2], classes, numbers)
    x, h = take(scratch, sizes, _X), take(scratch, sizes, _H)
    places = take(scratch, sizes, _PLACES).view(np.int32)
    gather_lanes(images, numbers[MICRO_TILE : 2 * MICRO_TILE], mean, std, x)
    convolution, linear, bias, inputs = _parts(image, filters, classes)
    following = images.reshape(images.size), numbers[2 * MICRO_TILE : 3 * MICRO_TILE]
    convolve_pool(x, image, w[:convolution], w[convolution:linear], h, places, following)
    linear_lanes(h, inputs, w[linear:bias], w[bias:], take(scratch, sizes, _LOGITS))


@inline_kernel
def _backward(
    image: Any, w: FloatArray, count: int, filters: int, classes: int, scratch: FloatArray, dw: FloatArray
) -> None:
    """From the gradient of a micro-tile's logits to that of all parameters."""
    sizes = _sizes_compiled(image, filters, classes)
    x, h, transposed = take(scratch, sizes, _X), take(scratch, sizes, _H), take(scratch, sizes, _TRANSPOSED)
    places = take(scratch, sizes, _PLACES).view(np.int32)
    dlogits = take(scratch, sizes, _LOGITS)
    dlogits[classes * MICRO_TILE :] = 0.0
    convolution, linear, bias, inputs = _parts(image, filters, classes)
    transpose_lanes(h, inputs, transposed)
    linear_weight_gradient(transposed, inputs, dlogits, count, dw[linear:bias], dw[bias:])
    row, sums = take(scratch, sizes, _ROW), take(scratch, sizes, _SUMS)
    own, own_bias = dw[:convolution], dw[convolution:linear]
    convolve_pool_gradient(x, image, h, places, w[linear:bias], dlogits, classes, row, sums, own, own_bias)


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
    sizes = _sizes_compiled(image, filters, classes)
    logits, lane = take(scratch, sizes, _LOGITS), take(scratch, sizes, _LANE)
    numbers = take(scratch, sizes, _NUMBERS).view(np.int64)
    branches = scratch[sum_of(sizes) :]
    parts, depth = (count + MICRO_TILE - 1) // MICRO_TILE, 0
    for part in range(parts):
        start, own = first + part * MICRO_TILE, min(MICRO_TILE, count - part * MICRO_TILE)
        _forward(images, labels, order, mean, std, w, start, own, filters, classes, scratch)
        losses[index, part] = cross_entropy_lanes(logits, classes, labels, numbers, own, scale, lane)
        _backward(image, w, own, filters, classes, scratch, branch(dw, branches, depth))
        depth = add_branches(dw, branches, depth + 1, part, parts)


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
    sizes = _sizes_compiled((images.shape[1], images.shape[2], images.shape[3]), filters, classes)
    logits, lane = take(scratch, sizes, _LOGITS), take(scratch, sizes, _LANE)
    numbers = take(scratch, sizes, _NUMBERS).view(np.int64)
    for part in range((count + MICRO_TILE - 1) // MICRO_TILE):
        start, own = first + part * MICRO_TILE, min(MICRO_TILE, count - part * MICRO_TILE)
        _forward(images, labels, order, mean, std, w, start, own, filters, classes, scratch)
        correct[index, part] = count_right(logits, classes, labels, numbers, own)
        losses[index, part] = cross_entropy_lanes(logits, classes, labels, numbers, own, 1.0, lane)


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
CNN_STEP = _NETWORK.step(_cnn_step)
"""`FusedNetwork.step` of the network: conv.weight, conv.bias, linear.weight, linear.bias in w and dw."""
CNN_EVALUATION = _NETWORK.evaluation(_cnn_evaluation)
"""`FusedNetwork.evaluation` of the network."""
