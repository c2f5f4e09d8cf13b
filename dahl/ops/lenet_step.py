"""A whole training step of `lenet` on one tile of images, in one task; and its evaluation.

The network: twice convolution 3x3, ReLU and max-pooling by 2, then linear, ReLU, linear.
In the convolutions a vector is 16 filters (`channel_lanes.py`, `chosen_products.py`), so there are multiples of 16;
in the linear layers it is 16 images (`image_lanes.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

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
from dahl.ops.image_lanes import (
    CLASS_BLOCK,
    cross_entropy_lanes,
    input_gradient_lanes,
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
from dahl.ops.simd import LANES
from dahl.ops.simd_lanes import transpose
from dahl.starpu.kernel import inline_kernel

# Parts of scratch, by their position in `_sizes`. Pixels; results of the first pooling and where the largest stood; of
# the second, by image and then with images as lanes, and transposed from that; the same of the units.
_X, _H1, _PLACES1, _H2, _PLACES2, _LANES2, _ROWS2, _UNITS, _UNIT_ROWS, _LOGITS = range(10)
# Gradients: of the units, the second pooling, one image's first pooling; weights and gradients in other orders.
_DUNITS, _DLANES2, _DH1, _TAPS1, _TAPS2, _FILTERS2, _DFILTERS2, _SUMS1 = range(10, 18)
# Lists of chosen_products, a vector, numbers of images.
_OFFSETS, _FACTORS, _ENDS, _LANE, _NUMBERS = range(18, 23)


def _sizes(image: Any, first_filters: int, second_filters: int, units: int, classes: int) -> Any:
    channels, height, width = image
    rows, columns = (height - 2) // 2, (width - 2) // 2
    one, two = rows * columns, ((rows - 2) // 2) * ((columns - 2) // 2)
    inputs, items = two * second_filters, (two + 1) * second_filters + MICRO_TILE
    unit_blocks = (units + CLASS_BLOCK - 1) // CLASS_BLOCK * CLASS_BLOCK
    return (
        channels * height * width * MICRO_TILE,
        one * first_filters * MICRO_TILE,
        one * first_filters,
        inputs * MICRO_TILE,
        inputs,
        inputs * MICRO_TILE,
        inputs * MICRO_TILE,
        units * MICRO_TILE,
        units * MICRO_TILE,
        (classes + CLASS_BLOCK - 1) // CLASS_BLOCK * CLASS_BLOCK * MICRO_TILE,
        unit_blocks * MICRO_TILE,
        inputs * MICRO_TILE,
        one * first_filters,
        9 * channels * first_filters,
        9 * first_filters * second_filters,
        9 * first_filters * second_filters,
        9 * first_filters * second_filters,
        (9 * channels + 1) * first_filters,
        items,
        items,
        (4 * two + MICRO_TILE - 1) // MICRO_TILE * MICRO_TILE,
        MICRO_TILE,
        NUMBERS_FLOATS,
    )


_sizes_compiled = inline_kernel(_sizes)


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
def _pack(image: Any, size: Any, w: FloatArray, scratch: FloatArray) -> None:
    """The convolutions' weights in the orders that the loops read."""
    sizes, ends = _sizes_compiled(image, size[0], size[1], size[2], size[3]), _parts(image, size)
    pack_taps(w[: ends[0]], size[0], image[0], take(scratch, sizes, _TAPS1))
    pack_taps(w[ends[1] : ends[2]], size[1], size[0], take(scratch, sizes, _TAPS2))
    pack_filters(w[ends[1] : ends[2]], size[1], size[0], take(scratch, sizes, _FILTERS2))


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
    scratch: FloatArray,
) -> None:
    """From a micro-tile's images to its logits, all in scratch."""
    image = (images.shape[1], images.shape[2], images.shape[3])
    pixels = image[0] * image[1] * image[2]
    sizes, ends = _sizes_compiled(image, size[0], size[1], size[2], size[3]), _parts(image, size)
    middle, rows, columns = _shapes(image, size[0])
    numbers = take(scratch, sizes, _NUMBERS).view(np.int64)
    find_images(labels, order, std, first, count, pixels, size[3], numbers)
    x, h1, h2 = take(scratch, sizes, _X), take(scratch, sizes, _H1), take(scratch, sizes, _H2)
    _gather(images, numbers, mean, std, count, x)
    steps = (pixels, image[2], 1, image[1] * image[2])
    places1, places2 = (
        take(scratch, sizes, _PLACES1).view(np.int32),
        take(scratch, sizes, _PLACES2).view(np.int32),
    )
    taps, bias = take(scratch, sizes, _TAPS1), w[ends[0] : ends[1]]
    convolve_pool_channels(x, count, image, steps, taps, bias, h1, places1)
    line = middle[2] * size[0]
    taps, bias = take(scratch, sizes, _TAPS2), w[ends[2] : ends[3]]
    convolve_pool_channels(h1, count, middle, (middle[1] * line, line, size[0], 1), taps, bias, h2, places2)
    lanes, units = take(scratch, sizes, _LANES2), take(scratch, sizes, _UNITS)
    h2[count * rows * columns * size[1] :] = 0.0
    _to_lanes(h2, rows * columns, size[1], lanes)
    linear_lanes(lanes, rows * columns * size[1], w[ends[3] : ends[4]], w[ends[4] : ends[5]], units)
    for k in range(units.size):
        units[k] = 0.0 if units[k] <= 0.0 else units[k]
    linear_lanes(units, size[2], w[ends[5] : ends[6]], w[ends[6] :], take(scratch, sizes, _LOGITS))


@inline_kernel
def _backward_linear(
    image: Any, w: FloatArray, count: int, size: Any, scratch: FloatArray, dw: FloatArray
) -> None:
    """From the gradient of the logits to those of the linear layers and of the second pooling, in its place."""
    sizes, ends = _sizes_compiled(image, size[0], size[1], size[2], size[3]), _parts(image, size)
    _, rows, columns = _shapes(image, size[0])
    inputs, classes = rows * columns * size[1], size[3]
    dlogits, units = take(scratch, sizes, _LOGITS), take(scratch, sizes, _UNITS)
    unit_rows, dunits = take(scratch, sizes, _UNIT_ROWS), take(scratch, sizes, _DUNITS)
    dlogits[classes * MICRO_TILE :] = 0.0
    transpose_lanes(units, size[2], unit_rows)
    linear_weight_gradient(unit_rows, size[2], dlogits, count, dw[ends[5] : ends[6]], dw[ends[6] :])
    dunits[:] = 0.0
    used = dunits[: units.size]
    input_gradient_lanes(units, w[ends[5] : ends[6]], size[2], 0, dlogits, classes, used)
    lanes, lane_rows = take(scratch, sizes, _LANES2), take(scratch, sizes, _ROWS2)
    transpose_lanes(lanes, inputs, lane_rows)
    linear_weight_gradient(lane_rows, inputs, dunits, count, dw[ends[3] : ends[4]], dw[ends[4] : ends[5]])
    dlanes = take(scratch, sizes, _DLANES2)
    input_gradient_lanes(lanes, w[ends[3] : ends[4]], inputs, 0, dunits, size[2], dlanes)
    _from_lanes(dlanes, rows * columns, size[1], take(scratch, sizes, _H2))


@inline_kernel
def _backward_convolutions(image: Any, count: int, size: Any, scratch: FloatArray, dw: FloatArray) -> None:
    """From the gradient of the second pooling to those of both convolutions."""
    sizes, ends = _sizes_compiled(image, size[0], size[1], size[2], size[3]), _parts(image, size)
    middle, rows, columns = _shapes(image, size[0])
    inputs, one, pixels = (
        rows * columns * size[1],
        middle[0] * middle[1] * middle[2],
        image[0] * image[1] * image[2],
    )
    x, h1, dh2, dh1 = (
        take(scratch, sizes, _X),
        take(scratch, sizes, _H1),
        take(scratch, sizes, _H2),
        take(scratch, sizes, _DH1),
    )
    places1, places2 = (
        take(scratch, sizes, _PLACES1).view(np.int32),
        take(scratch, sizes, _PLACES2).view(np.int32),
    )
    offsets, factors = take(scratch, sizes, _OFFSETS).view(np.int32), take(scratch, sizes, _FACTORS)
    list_ends = take(scratch, sizes, _ENDS).view(np.int32)
    filters, dfilters = take(scratch, sizes, _FILTERS2), take(scratch, sizes, _DFILTERS2)
    sums, db2 = take(scratch, sizes, _SUMS1), dw[ends[2] : ends[3]]
    dfilters[:] = 0.0
    db2[:] = 0.0
    sums[:] = 0.0
    for n in range(count):
        own, own_places = (
            dh2[n * inputs : (n + 1) * inputs],
            places2[n * inputs // LANES : (n + 1) * inputs // LANES],
        )
        h = h1[n * one : (n + 1) * one]
        chosen_weight_gradient(h, middle, own, own_places, size[1], offsets, factors, dfilters, db2)
        chosen_input_gradient(own, own_places, filters, size[1], middle, offsets, factors, list_ends, dh1)
        first_places = places1[n * one // LANES : (n + 1) * one // LANES]
        pixel_weight_gradient(x[n * pixels : (n + 1) * pixels], image, dh1, h, first_places, sums)
    unpack_filters(dfilters, size[1], size[0], dw[ends[1] : ends[2]])
    unpack_sums(sums, size[0], image[0], dw[: ends[0]], dw[ends[0] : ends[1]])


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
    sizes = _sizes_compiled(image, first_filters, second_filters, units, classes)
    logits, lane = take(scratch, sizes, _LOGITS), take(scratch, sizes, _LANE)
    numbers = take(scratch, sizes, _NUMBERS).view(np.int64)
    branches = scratch[sum_of(sizes) :]
    parts, depth = (count + MICRO_TILE - 1) // MICRO_TILE, 0
    _pack(image, size, w, scratch)
    for part in range(parts):
        start, own = first + part * MICRO_TILE, min(MICRO_TILE, count - part * MICRO_TILE)
        _forward(images, labels, order, mean, std, w, start, own, size, scratch)
        losses[index, part] = cross_entropy_lanes(logits, classes, labels, numbers, own, scale, lane)
        gradient = branch(dw, branches, depth)
        _backward_linear(image, w, own, size, scratch, gradient)
        _backward_convolutions(image, own, size, scratch, gradient)
        depth = add_branches(dw, branches, depth + 1, part, parts)


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
    sizes = _sizes_compiled(image, first_filters, second_filters, units, classes)
    logits, lane = take(scratch, sizes, _LOGITS), take(scratch, sizes, _LANE)
    numbers = take(scratch, sizes, _NUMBERS).view(np.int64)
    _pack(image, size, w, scratch)
    for part in range((count + MICRO_TILE - 1) // MICRO_TILE):
        start, own = first + part * MICRO_TILE, min(MICRO_TILE, count - part * MICRO_TILE)
        _forward(images, labels, order, mean, std, w, start, own, size, scratch)
        correct[index, part] = count_right(logits, classes, labels, numbers, own)
        losses[index, part] = cross_entropy_lanes(logits, classes, labels, numbers, own, 1.0, lane)


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
    return int(sum(_sizes(image, *_size(scalars))))


_NETWORK = FusedNetwork(
    "lenet",
    ("conv", "relu", "pool", "conv", "relu", "pool", "linear", "relu", "linear"),
    {"first_filters": 32, "second_filters": 64, "units": 128, "classes": 10},
    _parameter_shapes,
    _multiply_adds,
    _scratch,
    _fits,
)
LENET_STEP = _NETWORK.step(_lenet_step)
"""`FusedNetwork.step` of the network; filters and units are multiples of 16."""
LENET_EVALUATION = _NETWORK.evaluation(_lenet_evaluation)
"""`FusedNetwork.evaluation` of the network."""
