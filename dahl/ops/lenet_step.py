"""A whole training step of `lenet` on one tile of images, in one task; and its evaluation.

The network: twice convolution 3x3, ReLU and max-pooling by 2, then linear, ReLU, linear.
In the convolutions a vector is 16 filters (`channel_lanes.py`, `chosen_products.py`), so there are multiples of 16;
in the linear layers it is 16 images (`image_lanes.py`).
"""

from __future__ import annotations

from typing import Any

from dahl.ops.channel_lanes import (
    convolve_pool_channels,
    pack_filters,
    pack_taps,
    pixel_weight_gradient,
    unpack_filters,
    unpack_sums,
)
from dahl.ops.chosen_products import chosen_input_gradient, chosen_weight_gradient
from dahl.ops.gather import normalise
from dahl.ops.handover import hand_over, whole_lines_compiled
from dahl.ops.image_lanes import (
    cross_entropy_lanes,
    input_gradient_lanes,
    linear_lanes,
    linear_weight_gradient,
    transpose_lanes,
)
from dahl.ops.lenet_scratch import scratch_sizes, scratch_views
from dahl.ops.lenet_step_cuda import LENET_EVALUATION_CUDA, LENET_STEP_CUDA, LENET_UPDATE_STEP_CUDA
from dahl.ops.micro_tiles import MICRO_TILE, add_branches, branch
from dahl.ops.network_step import FusedNetwork, count_right, find_images, pooled
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
from dahl.ops.simd import LANES
from dahl.ops.simd_lanes import transpose
from dahl.ops.sum_and_step import add_and_update
from dahl.starpu.kernel import inline_kernel


@inline_kernel
def _parts(image: Any, size: Any) -> Any:
    """Where each parameter ends in the vector, the last one left out."""
    first_filters, second_filters, units, classes = size
    rows, columns = ((image[1] - 2) // 2 - 2) // 2, ((image[2] - 2) // 2 - 2) // 2
    w1 = first_filters * 9 * image[0]
    w2 = w1 + first_filters
    b2 = w2 + second_filters * 9 * first_filters
    w3 = b2 + second_filters
    b3 = w3 + units * second_filters * rows * columns
    w4 = b3 + units
    return w1, w2, b2, w3, b3, w4, w4 + classes * units


@inline_kernel
def _shapes(image: Any, first_filters: int) -> Any:
    """Images before the second convolution, and after the second pooling."""
    middle = (first_filters, (image[1] - 2) // 2, (image[2] - 2) // 2)
    return middle, (middle[1] - 2) // 2, (middle[2] - 2) // 2


@inline_kernel
def _pack(image: Any, size: Any, w: FloatArray, parts: Any) -> None:
    """The convolutions' weights in the orders that the loops read."""
    ends = _parts(image, size)
    pack_taps(w[: ends[0]], size[0], image[0], parts.taps1)
    pack_taps(w[ends[1] : ends[2]], size[1], size[0], parts.taps2)
    pack_filters(w[ends[1] : ends[2]], size[1], size[0], parts.filters2)


@inline_kernel
def _gather(
    images: ByteArray, numbers: LongArray, mean: FloatArray, std: FloatArray, count: int, x: FloatArray
) -> None:
    """Normalised images into x (count, C, H, W)."""
    channels, plane = mean.size, images.shape[2] * images.shape[3]
    for n in range(count):
        for c in range(channels):
            at = (n * channels + c) * plane
            pixels = images[numbers[n], c].reshape(plane)
            normalise(pixels, 1.0 / (255.0 * std[c]), -float(mean[c]) / std[c], x[at : at + plane])


@inline_kernel
def _to_lanes(h: FloatArray, windows: int, filters: int, lanes: FloatArray) -> None:
    """lanes (filters, windows, 16 images) = h (16 images, windows, filters)."""
    inputs = windows * filters
    for window in range(windows):
        for f in range(0, filters, LANES):
            to = (f * windows + window) * LANES
            transpose(h, window * filters + f, inputs, lanes, to, windows * LANES)


@inline_kernel
def _from_lanes(lanes: FloatArray, windows: int, filters: int, h: FloatArray) -> None:
    """The reverse of `_to_lanes`."""
    inputs = windows * filters
    for window in range(windows):
        for f in range(0, filters, LANES):
            at = (f * windows + window) * LANES
            transpose(lanes, at, windows * LANES, h, window * filters + f, inputs)


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
    size: Any,
    parts: Any,
) -> None:
    """From a micro-tile's images to its logits, all in scratch."""
    image = (images.shape[1], images.shape[2], images.shape[3])
    pixels, ends = image[0] * image[1] * image[2], _parts(image, size)
    middle, rows, columns = _shapes(image, size[0])
    find_images(labels, order, std, first, count, pixels, size[3], parts.numbers)
    _gather(images, parts.numbers, mean, std, count, parts.x)
    steps = (pixels, image[2], 1, image[1] * image[2])
    bias = w[ends[0] : ends[1]]
    convolve_pool_channels(parts.x, count, image, steps, parts.taps1, bias, parts.h1, parts.places1)
    line = middle[2] * size[0]
    steps, bias = (middle[1] * line, line, size[0], 1), w[ends[2] : ends[3]]
    convolve_pool_channels(parts.h1, count, middle, steps, parts.taps2, bias, parts.h2, parts.places2)
    parts.h2[count * rows * columns * size[1] :] = 0.0
    _to_lanes(parts.h2, rows * columns, size[1], parts.lanes2)
    inputs, units = rows * columns * size[1], parts.units
    linear_lanes(parts.lanes2, inputs, w[ends[3] : ends[4]], w[ends[4] : ends[5]], units)
    for k in range(units.size):
        units[k] = 0.0 if units[k] <= 0.0 else units[k]
    linear_lanes(units, size[2], w[ends[5] : ends[6]], w[ends[6] :], parts.logits)


@inline_kernel
def _backward_linear(image: Any, w: FloatArray, count: int, size: Any, parts: Any, dw: FloatArray) -> None:
    """From the gradient of the logits to those of the linear layers and of the second pooling, in its place."""
    ends = _parts(image, size)
    _, rows, columns = _shapes(image, size[0])
    inputs, classes, dlogits, dunits = rows * columns * size[1], size[3], parts.logits, parts.dunits
    dlogits[classes * MICRO_TILE :] = 0.0
    transpose_lanes(parts.units, size[2], parts.unit_rows)
    linear_weight_gradient(parts.unit_rows, size[2], dlogits, count, dw[ends[5] : ends[6]], dw[ends[6] :])
    dunits[:] = 0.0
    used = dunits[: parts.units.size]
    input_gradient_lanes(parts.units, w[ends[5] : ends[6]], size[2], 0, dlogits, classes, used)
    transpose_lanes(parts.lanes2, inputs, parts.rows2)
    dw3, db3 = dw[ends[3] : ends[4]], dw[ends[4] : ends[5]]
    linear_weight_gradient(parts.rows2, inputs, dunits, count, dw3, db3)
    input_gradient_lanes(parts.lanes2, w[ends[3] : ends[4]], inputs, 0, dunits, size[2], parts.dlanes2)
    _from_lanes(parts.dlanes2, rows * columns, size[1], parts.h2)


@inline_kernel
def _backward_convolutions(image: Any, count: int, size: Any, parts: Any, dw: FloatArray) -> None:
    """From the gradient of the second pooling to those of both convolutions."""
    ends = _parts(image, size)
    middle, rows, columns = _shapes(image, size[0])
    inputs, one = rows * columns * size[1], middle[0] * middle[1] * middle[2]
    pixels, db2 = image[0] * image[1] * image[2], dw[ends[2] : ends[3]]
    offsets, factors = parts.offsets, parts.factors
    parts.dfilters2[:] = 0.0
    db2[:] = 0.0
    parts.sums1[:] = 0.0
    for n in range(count):
        dh2 = parts.h2[n * inputs : (n + 1) * inputs]
        places = parts.places2[n * inputs // LANES : (n + 1) * inputs // LANES]
        h1 = parts.h1[n * one : (n + 1) * one]
        chosen_weight_gradient(h1, middle, dh2, places, size[1], offsets, factors, parts.dfilters2, db2)
        chosen_input_gradient(
            dh2, places, parts.filters2, size[1], middle, offsets, factors, parts.ends, parts.dh1
        )
        places = parts.places1[n * one // LANES : (n + 1) * one // LANES]
        x = parts.x[n * pixels : (n + 1) * pixels]
        pixel_weight_gradient(x, image, parts.dh1, h1, places, parts.sums1)
    unpack_filters(parts.dfilters2, size[1], size[0], dw[ends[1] : ends[2]])
    unpack_sums(parts.sums1, size[0], image[0], dw[: ends[0]], dw[ends[0] : ends[1]])


def _lenet_step(
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
    first_filters: int,
    second_filters: int,
    units: int,
    classes: int,
    scale: float,
    scratch: FloatArray,
) -> None:
    if first < 0 or first + count > order.size:
        raise IndexError("lenet_step: first and the tile's length reach outside order")
    image, size = (
        (images.shape[1], images.shape[2], images.shape[3]),
        (first_filters, second_filters, units, classes),
    )
    parts, micros, depth = scratch_views(scratch, image, size), (count + MICRO_TILE - 1) // MICRO_TILE, 0
    _pack(image, size, w, parts)
    for micro in range(micros):
        start, own = first + micro * MICRO_TILE, min(MICRO_TILE, count - micro * MICRO_TILE)
        _forward(images, labels, order, mean, std, w, start, own, size, parts)
        losses[index, micro] = cross_entropy_lanes(
            parts.logits, classes, labels, parts.numbers, own, scale, parts.lane
        )
        gradient = branch(dw, parts.rest, depth)
        _backward_linear(image, w, own, size, parts, gradient)
        _backward_convolutions(image, own, size, parts, gradient)
        depth = add_branches(dw, parts.rest, depth + 1, micro + 1, micro == micros - 1)


_step_compiled = inline_kernel(_lenet_step)


def _lenet_update_step(
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
    first_filters: int,
    second_filters: int,
    units: int,
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
    data, size = (images, labels, order, mean, std), (first_filters, second_filters, units, classes)
    if items == 1:
        _step_compiled(*data, w, dw, losses, first, index, count, *size, scale, scratch)
    else:  # others read dw, too
        own, rest = scratch[: w.size], scratch[whole_lines_compiled(w.size) :]
        _step_compiled(*data, w, own, losses, first, index, count, *size, scale, rest)
        hand_over(own, dw)


def _lenet_evaluation(
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
    first_filters: int,
    second_filters: int,
    units: int,
    classes: int,
    scratch: FloatArray,
) -> None:
    if first < 0 or first + count > order.size:
        raise IndexError("lenet_evaluation: first and the tile's length reach outside order")
    image, size = (
        (images.shape[1], images.shape[2], images.shape[3]),
        (first_filters, second_filters, units, classes),
    )
    parts = scratch_views(scratch, image, size)
    _pack(image, size, w, parts)
    for micro in range((count + MICRO_TILE - 1) // MICRO_TILE):
        start, own = first + micro * MICRO_TILE, min(MICRO_TILE, count - micro * MICRO_TILE)
        _forward(images, labels, order, mean, std, w, start, own, size, parts)
        correct[index, micro] = count_right(parts.logits, classes, labels, parts.numbers, own)
        losses[index, micro] = cross_entropy_lanes(
            parts.logits, classes, labels, parts.numbers, own, 1.0, parts.lane
        )


def _size(scalars: Scalars) -> tuple[int, int, int, int]:
    first, second, units, classes = (
        int(scalars[name]) for name in ("first_filters", "second_filters", "units", "classes")
    )
    return first, second, units, classes


def _fits(image: Shape, scalars: Scalars) -> None:
    require(min(image[1:]) >= 10, f"lenet: images of {image[1]}x{image[2]} are too small, they need 10x10")
    for name in ("first_filters", "second_filters", "units"):
        require(
            int(scalars[name]) % LANES == 0, f"lenet: {name} must be a multiple of 16, got {scalars[name]}"
        )


def _parameter_shapes(image: Shape, scalars: Scalars) -> list[Shape]:
    first, second, units, classes = _size(scalars)
    rows, columns = pooled(*pooled(*image[1:]))
    convolutions = [(first, image[0], 3, 3), (first,), (second, first, 3, 3), (second,)]
    return [*convolutions, (units, second * rows * columns), (units,), (classes, units), (classes,)]


def _multiply_adds(image: Shape, scalars: Scalars) -> tuple[float, float]:
    """Forward four results of each window; backward one of them, and all but the first layer twice."""
    first, second, units, classes = _size(scalars)
    one, two = pooled(*image[1:]), pooled(*pooled(*image[1:]))
    convolutions = one[0] * one[1] * first * 9 * image[0], two[0] * two[1] * second * 9 * first
    linear = two[0] * two[1] * second * units + units * classes
    forward = 4.0 * sum(convolutions) + linear
    return forward, float(convolutions[0] + 2 * convolutions[1] + 2 * linear)


def _scratch(image: Shape, scalars: Scalars) -> int:
    return int(sum(scratch_sizes(image, *_size(scalars))))


_NETWORK = FusedNetwork(
    "lenet",
    ("conv", "relu", "pool", "conv", "relu", "pool", "linear", "relu", "linear"),
    {"first_filters": 32, "second_filters": 64, "units": 128, "classes": 10},
    _parameter_shapes,
    _multiply_adds,
    _scratch,
    _fits,
)
LENET_STEP = _NETWORK.step(_lenet_step, LENET_STEP_CUDA)
"""`FusedNetwork.step` of the network; filters and units are multiples of 16."""
LENET_UPDATE_STEP = _NETWORK.update_step(_lenet_update_step, LENET_UPDATE_STEP_CUDA)
"""`FusedNetwork.update_step` of the network; filters and units are multiples of 16."""
LENET_EVALUATION = _NETWORK.evaluation(_lenet_evaluation, LENET_EVALUATION_CUDA)
"""`FusedNetwork.evaluation` of the network."""
