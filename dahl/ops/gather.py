"""Gather a tile of images and labels from a data set, normalised."""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.device import count, launched, source
from dahl.ops.operation import (
    FLOAT_BYTES,
    Arrays,
    ByteArray,
    Cost,
    FloatArray,
    IntArray,
    LongArray,
    Operation,
    Scalars,
    Shapes,
    elements,
    floats,
    require,
    require_shape,
)
from dahl.starpu.kernel import Kernel, Operand, inline_kernel
from dahl.starpu.launch import Buffer, CudaKernel, Failure, Program, Scalar

_PIXEL_MAX = 255.0
_ARCHES = ("cpu",)  # a data set stays in main memory, where it may be larger than a GPU's


@inline_kernel
def normalise(pixels: ByteArray, scale: float, shift: float, out: FloatArray) -> None:
    """out = pixels * scale + shift."""
    factor = np.float32(scale)
    offset = np.float32(shift)
    for i in range(out.size):
        out[i] = np.float32(pixels[i]) * factor + offset


def _gather(
    images: ByteArray,
    labels: IntArray,
    order: LongArray,
    mean: FloatArray,
    std: FloatArray,
    x: FloatArray,
    y: IntArray,
    first: int,
) -> None:
    if first < 0 or first + y.size > order.size:
        raise IndexError("gather: first and the tile's length reach outside order")
    plane = x.shape[2] * x.shape[3]
    for i in range(y.size):
        source = order[first + i]
        if source < 0 or source >= labels.size:
            raise IndexError("gather: order names an image outside the data set")
        label = labels[source]
        if label < 0:
            raise ValueError("gather: a label is negative")
        y[i] = label
        for c in range(x.shape[1]):
            if std[c] == 0.0:
                raise ValueError("gather: std is 0")
            normalise(
                images[source, c].reshape(plane),
                1.0 / (_PIXEL_MAX * std[c]),
                -float(mean[c]) / std[c],
                x[i, c].reshape(plane),
            )


def _check(shapes: Shapes, scalars: Scalars) -> None:
    images, tile = shapes["images"], shapes["x"]
    require_shape("gather", "labels", shapes["labels"], images[:1], "images")
    require_shape("gather", "mean", shapes["mean"], images[1:2], "images")
    require_shape("gather", "std", shapes["std"], images[1:2], "images")
    require_shape("gather", "x", tile, (tile[0], *images[1:]), "images")
    require_shape("gather", "y", shapes["y"], tile[:1], "x")
    require(
        tile[0] <= shapes["order"][0],
        f"gather: order has {shapes['order'][0]} entries for a tile of {tile[0]}",
    )


def _cost(shapes: Shapes, scalars: Scalars) -> Cost:
    size, count = elements(shapes["x"]), shapes["y"][0]
    return Cost(flops=2.0 * size, bytes=size * (1.0 + FLOAT_BYTES) + count * (8.0 + 4.0 + 4.0))


def _reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    first = int(scalars["first"])
    chosen = inputs["order"][first : first + inputs["y"].shape[0]]
    mean = inputs["mean"].astype(np.float64)[:, None, None]
    std = inputs["std"].astype(np.float64)[:, None, None]
    pixels = inputs["images"][chosen].astype(np.float64)
    return {"x": (pixels / 255.0 - mean) / std, "y": inputs["labels"][chosen]}


def _cuda(shapes: Shapes, scalars: Scalars) -> Program:
    (data, channels, height, width), images = shapes["images"], shapes["y"][0]
    count(shapes["x"])
    sizes = data, shapes["order"][0], channels, height * width, images
    arguments = *map(Buffer, _OPERANDS), *sizes, Scalar("first"), Failure()
    return Program((launched("gather", (images, 1, 1), (256, 1, 1), *arguments),))


_OPERANDS = "images", "labels", "order", "mean", "std", "x", "y"
GATHER = Operation(
    kernel=Kernel(
        "gather",
        _gather,
        (
            Operand("images", "r", 4, "uint8"),
            Operand("labels", "r", 1, "int32"),
            Operand("order", "r", 1, "int64"),
            floats("mean", "r", 1),
            floats("std", "r", 1),
            floats("x", "w", 4),
            Operand("y", "w", 1, "int32"),
        ),
        scalars=(("first", "int64"),),
    ),
    check=_check,
    cost=_cost,
    reference=_reference,
    arches=_ARCHES,
    cuda=CudaKernel(source("gather"), _cuda),
)
"""x[i] = (images[order[first + i]] / 255 - mean) / std, y[i] = labels[order[first + i]].

images (N, C, H, W) uint8, labels (N,), order (any,), mean and std (C,), x (n, C, H, W), y (n,).
An entry of order outside the data set, a window outside order, a negative label or a std of 0 raises.
"""
