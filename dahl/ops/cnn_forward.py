"""What a training step and an evaluation of a small network in one task share: everything up to the logits.

The network: convolution 3x3, ReLU, max-pooling by 2, linear layer, softmax and cross-entropy.
All parameters are one vector: convolution's weight and bias, linear layer's weight and bias, each in C order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.conv2d import CONV2D
from dahl.ops.gather import GATHER
from dahl.ops.image_lanes import CLASS_BLOCK, convolve_pool, gather_lanes, linear_lanes
from dahl.ops.max_pool2d import MAX_POOL2D
from dahl.ops.micro_tiles import MICRO_TILE, micro_tiles
from dahl.ops.operation import (
    Arrays,
    ByteArray,
    FloatArray,
    IntArray,
    LongArray,
    Scalars,
    Shape,
    Shapes,
    elements,
    floats,
    require,
    require_shape,
)
from dahl.ops.softmax_cross_entropy import SOFTMAX_CROSS_ENTROPY
from dahl.starpu.kernel import Operand, inline_kernel

ARCHES = ("cpu",)  # reads the data set, which stays in main memory
_NUMBERS = 3  # int64 vectors of a micro-tile: which images, where they stand, where the next ones do


def pooled(image: Shape) -> tuple[int, int]:
    """Rows and columns after convolution 3x3 and pooling by 2 of an image (C, H, W)."""
    return (image[1] - 2) // 2, (image[2] - 2) // 2


def parameter_count(image: Shape, filters: int, classes: int) -> int:
    """Length of the vector of parameters for images (C, H, W)."""
    rows, columns = pooled(image)
    return filters * (9 * image[0] + 1) + classes * (filters * rows * columns + 1)


def scratch_sizes(image: Any, filters: int, classes: int) -> Any:
    """Floats of scratch: pixels, activations, their transposes, places, logits, a row of gradients, sums, a vector."""
    channels, height, width = image
    rows, columns = (height - 2) // 2, (width - 2) // 2
    inputs = (filters * rows * columns + MICRO_TILE - 1) // MICRO_TILE * MICRO_TILE
    logits = (classes + CLASS_BLOCK - 1) // CLASS_BLOCK * CLASS_BLOCK
    return (
        channels * height * width * MICRO_TILE,
        inputs * MICRO_TILE,
        inputs * MICRO_TILE,
        inputs,
        logits * MICRO_TILE,
        (columns + 15) // 16 * 16 * MICRO_TILE,
        filters * (9 * channels + 1) * MICRO_TILE,
        MICRO_TILE,
        2 * _NUMBERS * MICRO_TILE,
    )


compiled_sizes = inline_kernel(scratch_sizes)


@inline_kernel
def take(scratch: FloatArray, sizes: Any, position: int) -> FloatArray:
    start = 0
    for before in range(position):
        start += sizes[before]
    return scratch[start : start + sizes[position]]


@inline_kernel
def sum_of(sizes: Any) -> int:
    """Sum of a tuple of integers."""
    total = 0
    for size in sizes:
        total += size
    return total


@inline_kernel
def _check_images(labels: IntArray, std: FloatArray, chosen: LongArray, classes: int) -> None:
    for n in range(chosen.size):
        if chosen[n] < 0 or chosen[n] >= labels.size:
            raise IndexError("cnn_step: order names an image outside the data set")
        if labels[chosen[n]] < 0 or labels[chosen[n]] >= classes:
            raise ValueError("cnn_step: a label is outside the classes")
    for c in range(std.size):
        if std[c] == 0.0:
            raise ValueError("cnn_step: std is 0")


@inline_kernel
def _find_images(order: LongArray, first: int, count: int, pixels: int, numbers: LongArray) -> None:
    """The numbers of the images, their first bytes, and those of the next 16."""
    for n in range(MICRO_TILE):
        chosen = order[first + min(n, count - 1)]
        numbers[n] = chosen
        numbers[MICRO_TILE + n] = chosen * pixels
        numbers[2 * MICRO_TILE + n] = order[min(first + MICRO_TILE + n, order.size - 1)] * pixels


@inline_kernel
def forward(
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
    pixels = image[0] * image[1] * image[2]
    sizes = compiled_sizes(image, filters, classes)
    numbers = take(scratch, sizes, 8).view(np.int64)
    _find_images(order, first, count, pixels, numbers)
    _check_images(labels, std, numbers[:MICRO_TILE], classes)
    x, h, places = take(scratch, sizes, 0), take(scratch, sizes, 1), take(scratch, sizes, 3).view(np.int32)
    gather_lanes(images, numbers[MICRO_TILE : 2 * MICRO_TILE], mean, std, x)
    convolution = filters * 9 * image[0]
    inputs = filters * ((image[1] - 2) // 2) * ((image[2] - 2) // 2)
    linear = convolution + filters
    following = images.reshape(images.size), numbers[2 * MICRO_TILE : 3 * MICRO_TILE]
    convolve_pool(x, image, w[:convolution], w[convolution:linear], h, places, following)
    bias = linear + classes * inputs
    linear_lanes(h, inputs, w[linear:bias], w[bias:], take(scratch, sizes, 4))


def check(shapes: Shapes, scalars: Scalars) -> None:
    images, count = shapes["images"], int(scalars["count"])
    require(min(images[2:]) >= 4, f"cnn_step: images of {images[2]}x{images[3]} are too small: at least 4x4")
    require(1 <= count <= shapes["order"][0], f"cnn_step: order has {shapes['order'][0]} entries for {count}")
    require_shape("cnn_step", "labels", shapes["labels"], images[:1], "images")
    require_shape("cnn_step", "mean", shapes["mean"], images[1:2], "images")
    require_shape("cnn_step", "std", shapes["std"], images[1:2], "images")
    length = parameter_count(images[1:], int(scalars["filters"]), int(scalars["classes"]))
    require_shape("cnn_step", "w", shapes["w"], (length,), "filters, classes and images")
    for name in ("losses", "correct"):
        if name in shapes:
            have, need = shapes[name][1], micro_tiles(count)
            require(have >= need, f"cnn_step: {name} has {have} columns for {need} micro-tiles")
    if "dw" in shapes:
        require_shape("cnn_step", "dw", shapes["dw"], shapes["w"], "w")


def multiply_adds(shapes: Shapes, scalars: Scalars) -> tuple[float, float]:
    """Multiply-adds of one image: of the pooled windows by one convolution result each, of the linear layer."""
    channels, *_ = image = shapes["images"][1:]
    rows, columns = pooled(image)
    windows = float(scalars["filters"]) * rows * columns
    return windows * 9 * channels, windows * float(scalars["classes"])


def scratch_floats(shapes: Shapes, scalars: Scalars) -> int:
    return int(sum(scratch_sizes(shapes["images"][1:], int(scalars["filters"]), int(scalars["classes"]))))


def split(w: Any, image: Shape, filters: int, classes: int) -> list[Any]:
    """The four parameters in the vector."""
    rows, columns = pooled(image)
    shapes = ((filters, image[0], 3, 3), (filters,), (classes, filters * rows * columns), (classes,))
    ends = np.cumsum([elements(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(w, ends[:-1]), shapes, strict=True)]


def _values(inputs: Arrays, scalars: Scalars, first: int, count: int) -> dict[str, Any]:
    """Every value of the forward pass on so many images, each by its operation's own reference."""
    image, filters = inputs["images"].shape[1:], int(scalars["filters"])
    wc, bc, wl, bl = split(inputs["w"], image, filters, int(scalars["classes"]))
    tile = {**inputs, "y": np.empty(count)}
    made = GATHER.reference(tile, {"first": first})
    window = {"stride": 1, "padding": 0}
    y = CONV2D.reference({"x": made["x"], "w": wc}, window)["y"] + bc[:, None, None]
    h = MAX_POOL2D.reference({"x": np.maximum(y, 0.0)}, {"size": 2, "stride": 2})
    flat = h["y"].reshape(count, -1)
    found = {
        "x": made["x"],
        "labels": made["y"],
        "convolved": y,
        "argmax": h["argmax"],
        "flat": flat,
        "wl": wl,
    }
    return {**found, "logits": flat @ wl.T + bl}


def micro_results(inputs: Arrays, scalars: Scalars) -> list[tuple[int, dict[str, Any], float]]:
    """Number, values and loss of each micro-tile."""
    first, count = int(scalars["first"]), int(scalars["count"])
    results = []
    for part in range(micro_tiles(count)):
        start = part * MICRO_TILE
        found = _values(inputs, scalars, first + start, min(MICRO_TILE, count - start))
        shape = {"logits": found["logits"], "labels": found["labels"]}
        loss = SOFTMAX_CROSS_ENTROPY.reference(shape, {"scale": 1.0})["loss"][0]
        results.append((part, found, float(loss)))
    return results


INPUTS = (
    Operand("images", "r", 4, "uint8"),
    Operand("labels", "r", 1, "int32"),
    Operand("order", "r", 1, "int64"),
    floats("mean", "r", 1),
    floats("std", "r", 1),
    floats("w", "r", 1),
)
SCALARS = tuple((name, "int64") for name in ("first", "index", "count", "filters", "classes"))
DEFAULTS = {"count": 16, "filters": 4, "classes": 10}
