"""A whole training step of a small network (`cnn_forward.py`) on one tile of images, in one task.

Micro-tiles of 16 images go through all of it while their values are in the cache (`image_lanes.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

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
    split,
    sum_of,
    take,
)
from dahl.ops.conv2d import CONV2D_BACKWARD_WEIGHT
from dahl.ops.image_lanes import (
    convolve_pool_gradient,
    cross_entropy_lanes,
    linear_weight_gradient,
    transpose_lanes,
)
from dahl.ops.max_pool2d import MAX_POOL2D_BACKWARD
from dahl.ops.micro_tiles import MICRO_TILE, add_branches, branch, branch_floats, micro_tiles
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
    floats,
)
from dahl.ops.softmax_cross_entropy import SOFTMAX_CROSS_ENTROPY
from dahl.starpu.kernel import Kernel, Operand, inline_kernel


@inline_kernel
def _backward(
    image: Any, w: FloatArray, count: int, filters: int, classes: int, scratch: FloatArray, dw: FloatArray
) -> None:
    """From the gradient of a micro-tile's logits to that of all parameters."""
    sizes = compiled_sizes(image, filters, classes)
    x, h, places = take(scratch, sizes, 0), take(scratch, sizes, 1), take(scratch, sizes, 3).view(np.int32)
    transposed, dlogits = take(scratch, sizes, 2), take(scratch, sizes, 4)
    convolution = filters * 9 * image[0]
    columns = (image[2] - 2) // 2
    inputs = filters * ((image[1] - 2) // 2) * columns
    linear = convolution + filters
    bias = linear + classes * inputs
    transpose_lanes(h, inputs, transposed)
    linear_weight_gradient(transposed, inputs, dlogits, count, dw[linear:bias], dw[bias:])
    row, sums = take(scratch, sizes, 5)[: columns * MICRO_TILE], take(scratch, sizes, 6)
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
    sizes = compiled_sizes(image, filters, classes)
    dlogits, lane = take(scratch, sizes, 4), take(scratch, sizes, 7)
    numbers = take(scratch, sizes, 8).view(np.int64)
    branches = scratch[sum_of(sizes) :]
    parts, depth = (count + MICRO_TILE - 1) // MICRO_TILE, 0
    for part in range(parts):
        start, own = first + part * MICRO_TILE, min(MICRO_TILE, count - part * MICRO_TILE)
        forward(images, labels, order, mean, std, w, start, own, filters, classes, scratch)
        losses[index, part] = cross_entropy_lanes(dlogits, classes, labels, numbers, own, scale, lane)
        dlogits[classes * MICRO_TILE :] = 0.0
        _backward(image, w, own, filters, classes, scratch, branch(dw, branches, depth))
        depth = add_branches(dw, branches, depth + 1, part, parts)


def _cost_step(shapes: Shapes, scalars: Scalars) -> Cost:
    """Forward four results a window, backward the largest alone; the linear layer three times."""
    convolution, linear = multiply_adds(shapes, scalars)
    count, length = float(scalars["count"]), shapes["w"][0]
    traffic = count * elements(shapes["images"][1:]) + 2 * FLOAT_BYTES * length
    return Cost(2 * count * (5 * convolution + 3 * linear), traffic)


def _scratch_step(shapes: Shapes, scalars: Scalars) -> int:
    parts = micro_tiles(int(scalars["count"]))
    return scratch_floats(shapes, scalars) + branch_floats(parts, shapes["w"][0])


def _gradient(found: dict[str, Any], inputs: Arrays, scalars: Scalars) -> Any:
    shape = {"logits": found["logits"], "labels": found["labels"]}
    dlogits = SOFTMAX_CROSS_ENTROPY.reference(shape, {"scale": scalars["scale"]})["dlogits"]
    dpooled = (dlogits @ found["wl"]).reshape(found["argmax"].shape)
    spread = {"dy": dpooled, "argmax": found["argmax"], "dx": found["convolved"]}
    dy = MAX_POOL2D_BACKWARD.reference(spread, {"size": 2, "stride": 2})["dx"] * (found["convolved"] > 0)
    wc = split(inputs["w"], inputs["images"].shape[1:], dy.shape[1], dlogits.shape[1])[0]
    arrays = {"x": found["x"], "dy": dy, "dw": wc}
    dwc = CONV2D_BACKWARD_WEIGHT.reference(arrays, {"stride": 1, "padding": 0})["dw"]
    parts = dwc, dy.sum(axis=(0, 2, 3)), dlogits.T @ found["flat"], dlogits.sum(axis=0)
    return np.concatenate([part.reshape(-1) for part in parts])


def _reference_step(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    losses, gradient = inputs["losses"].copy(), np.zeros(inputs["w"].size)
    for part, found, loss in micro_results(inputs, scalars):
        losses[int(scalars["index"]), part] = loss
        gradient += _gradient(found, inputs, scalars)
    return {"dw": gradient, "losses": losses}


CNN_STEP = Operation(
    Kernel(
        "cnn_step",
        _cnn_step,
        (*INPUTS, floats("dw", "w", 1), Operand("losses", "rw", 2, "float64")),
        (*SCALARS, ("scale", "float64")),
        scratch=True,
    ),
    check,
    _cost_step,
    _reference_step,
    _scratch_step,
    "conv",
    DEFAULTS,
    ARCHES,
)
"""dw = gradient of scale times the sum of the losses of `count` images to all parameters w (length,).

The images are images[order[first]], images[order[first + 1]], ..., normalised as by GATHER.
losses[index, k] becomes the sum of the losses of micro-tile k.
An image outside the data set, a label outside the classes or a std of 0 raises; a NaN in w makes the losses NaN.
"""
