"""What operations share that take a tile of images through a whole network, forward and backward, in one task.

All parameters are one vector: weight and bias of each layer, in the order of the layers and each in C order.
A kernel takes one micro-tile of 16 images after the other through all layers, while their values are in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dahl.ops.accuracy import ACCURACY
from dahl.ops.conv2d import CONV2D, CONV2D_BACKWARD_INPUT, CONV2D_BACKWARD_WEIGHT
from dahl.ops.gather import GATHER
from dahl.ops.handover import whole_lines
from dahl.ops.max_pool2d import MAX_POOL2D, MAX_POOL2D_BACKWARD
from dahl.ops.micro_tiles import MICRO_TILE, branch_floats, micro_tiles
from dahl.ops.operation import (
    FLOAT_BYTES,
    Arrays,
    Cost,
    FloatArray,
    IntArray,
    LongArray,
    Operation,
    Scalars,
    Shape,
    Shapes,
    elements,
    floats,
    require,
    require_shape,
)
from dahl.ops.softmax_cross_entropy import SOFTMAX_CROSS_ENTROPY
from dahl.ops.sum_and_step import ENDS, SUM_AND_STEP, update_scratch
from dahl.starpu.kernel import Kernel, Operand, inline_kernel
from dahl.starpu.launch import CudaKernel

_ARCHES = ("cpu",)  # reads the data set, which stays in main memory
_CONVOLUTION = {"stride": 1, "padding": 0}
_POOLING = {"size": 2, "stride": 2}
NUMBERS_FLOATS = 2 * 3 * MICRO_TILE
"""Scratch for `find_images`: three int64 for each image of a micro-tile."""


def pooled(height: int, width: int) -> tuple[int, int]:
    """Rows and columns after a convolution 3x3 and pooling by 2."""
    return (height - 2) // 2, (width - 2) // 2


@inline_kernel
def cut(scratch: FloatArray, at: int, size: int) -> Any:
    """The next part of scratch, and where it ends."""
    return scratch[at : at + size], at + size


@inline_kernel
def find_images(
    labels: IntArray,
    order: LongArray,
    std: FloatArray,
    first: int,
    count: int,
    pixels: int,
    classes: int,
    numbers: LongArray,
) -> None:
    """Put the numbers of a micro-tile's images, their first bytes, and those of the next 16 into `numbers`.

    Where fewer are left, the last one is repeated. An image, label or std that cannot be raises.
    """
    for c in range(std.size):
        if std[c] == 0.0:
            raise ValueError("std is 0")
    for n in range(MICRO_TILE):
        chosen = order[first + min(n, count - 1)]
        if chosen < 0 or chosen >= labels.size:
            raise IndexError("order names an image outside the data set")
        if labels[chosen] < 0 or labels[chosen] >= classes:
            raise ValueError("a label is outside the classes")
        following = min(max(order[min(first + MICRO_TILE + n, order.size - 1)], 0), labels.size - 1)
        numbers[n] = chosen
        numbers[MICRO_TILE + n] = chosen * pixels
        numbers[2 * MICRO_TILE + n] = following * pixels


@inline_kernel
def count_right(logits: FloatArray, classes: int, labels: IntArray, numbers: LongArray, count: int) -> int:
    """How many of `count` images (lanes of logits) have their first largest logit at the label; a NaN is wrong."""
    right = 0
    for n in range(count):
        best = 0
        known = True
        for c in range(classes):
            value = logits[c * MICRO_TILE + n]
            known &= value == value
            if value > logits[best * MICRO_TILE + n]:
                best = c
        if known and best == labels[numbers[n]]:
            right += 1
    return right


@final
@dataclass(frozen=True)
class FusedNetwork:
    """A network that is one task: what is known of it without running it.

    Args:
        name: of the operations, ``<name>_step`` and ``<name>_evaluation``.
        kinds: the layers: conv (3x3), relu, pool (by 2) or linear.
        sizes: the scalars that say how large its layers are, with a value for each; ``classes`` is one.
        parameter_shapes: weight and bias of each layer that has them, for an image (C, H, W) and sizes.
        multiply_adds: of one image, forward and backward.
        scratch: floats that a micro-tile needs.
        fits: raises ShapeError where an image or a size is none for the kernels.
    """

    name: str
    kinds: tuple[str, ...]
    sizes: dict[str, int]
    parameter_shapes: Callable[[Shape, Scalars], list[Shape]]
    multiply_adds: Callable[[Shape, Scalars], tuple[float, float]]
    scratch: Callable[[Shape, Scalars], int]
    fits: Callable[[Shape, Scalars], None]

    def step(self, function: Callable[..., None], cuda: CudaKernel | None = None) -> Operation:
        """dw = gradient of `scale` times the sum of the losses of `count` images to all parameters w (length,).

        The images are images[order[first]], images[order[first + 1]], ..., normalised as by GATHER.
        losses[index, k] becomes the sum of the losses of micro-tile k.
        An image outside the data set, a label outside the classes or a std of 0 raises; a NaN in w makes losses NaN.
        """
        operands = (*_INPUTS, floats("dw", "w", 1), Operand("losses", "rw", 2, "float64"))
        scalars = (*self._scalars(), ("scale", "float64"))
        kernel = Kernel(f"{self.name}_step", function, operands, scalars, scratch=True)
        return Operation(
            kernel,
            self._check,
            self._cost_step,
            self._reference_step,
            self._scratch_step,
            "conv",
            {"count": MICRO_TILE, **self.sizes},
            _ARCHES,
            cuda,
        )

    def update_step(self, function: Callable[..., None], cuda: CudaKernel | None = None) -> Operation:
        """SUM_AND_STEP of w, v and items, where `pending` is not 0; then `step` with the new w.

        A mini-batch of such tasks needs no task between it and the next one: each has a w and v of its own, and takes
        what all tasks of the last mini-batch wrote into dw as its items. dw must be none of them.
        """
        own = (Operand("w", "rw", 1), Operand("v", "rw", 1), floats("dw", "w", 1))
        operands = (
            *_INPUTS[:-1],
            ENDS,
            *own,
            Operand("losses", "rw", 2, "float64"),
            Operand("items", "r", 1, repeated=True),
        )
        rates = tuple((name, "float64") for name in ("scale", "learning_rate", "momentum", "weight_decay"))
        scalars = (*self._scalars(), *rates, ("pending", "int64"))
        kernel = Kernel(f"{self.name}_update_step", function, operands, scalars, scratch=True)
        return Operation(
            kernel,
            self._check_update_step,
            self._cost_update_step,
            self._reference_update_step,
            self._scratch_update_step,
            "conv",
            {"count": MICRO_TILE, **SUM_AND_STEP.defaults, "pending": 1, **self.sizes},
            _ARCHES,
            cuda,
        )

    def evaluation(self, function: Callable[..., None], cuda: CudaKernel | None = None) -> Operation:
        """The losses of `step` without a gradient, and correct[index, k]: how many of micro-tile k are right."""
        histories = (Operand("losses", "rw", 2, "float64"), Operand("correct", "rw", 2, "int64"))
        kernel = Kernel(
            f"{self.name}_evaluation", function, (*_INPUTS, *histories), self._scalars(), scratch=True
        )
        return Operation(
            kernel,
            self._check,
            self._cost_evaluation,
            self._reference_evaluation,
            self._scratch,
            "conv",
            {"count": MICRO_TILE, **self.sizes},
            _ARCHES,
            cuda,
        )

    def _scalars(self) -> tuple[tuple[str, str], ...]:
        return tuple((name, "int64") for name in ("first", "index", "count", *self.sizes))

    def _check(self, shapes: Shapes, scalars: Scalars) -> None:
        images, count = shapes["images"], int(scalars["count"])
        self.fits(images[1:], scalars)
        have = shapes["order"][0]
        require(1 <= count <= have, f"{self.name}: order has {have} entries for {count} images")
        require_shape(self.name, "labels", shapes["labels"], images[:1], "images")
        for statistic in ("mean", "std"):
            require_shape(self.name, statistic, shapes[statistic], images[1:2], "images")
        length = sum(map(elements, self.parameter_shapes(images[1:], scalars)))
        require_shape(self.name, "w", shapes["w"], (length,), f"images {images[1:]} and its sizes")
        for history in ("losses", "correct"):
            have = shapes[history][1] if history in shapes else micro_tiles(count)
            need = micro_tiles(count)
            require(have >= need, f"{self.name}: {history} has {have} columns for {need} micro-tiles")
        require_shape(self.name, "dw", shapes.get("dw", shapes["w"]), shapes["w"], "w")

    def _check_update_step(self, shapes: Shapes, scalars: Scalars) -> None:
        self._check(shapes, scalars)
        SUM_AND_STEP.check(shapes, scalars)

    def _cost_update_step(self, shapes: Shapes, scalars: Scalars) -> Cost:
        step, update = self._cost_step(shapes, scalars), SUM_AND_STEP.cost(shapes, scalars)
        return Cost(step.flops + update.flops, step.bytes + update.bytes)

    def _scratch_update_step(self, shapes: Shapes, scalars: Scalars) -> int:
        size, count = shapes["w"][0], len(shapes["items"])
        own = whole_lines(size) if count > 1 else 0
        return max(own + self._scratch_step(shapes, scalars), update_scratch(shapes))

    def _reference_update_step(self, inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
        updated = {"w": inputs["w"], "v": inputs["v"]}
        if scalars["pending"]:
            updated = SUM_AND_STEP.reference(inputs, scalars)
        return {**updated, **self._reference_step({**inputs, **updated}, scalars)}

    def _cost_step(self, shapes: Shapes, scalars: Scalars) -> Cost:
        forward, backward = self.multiply_adds(shapes["images"][1:], scalars)
        return self._cost(shapes, scalars, forward + backward, 2)

    def _cost_evaluation(self, shapes: Shapes, scalars: Scalars) -> Cost:
        return self._cost(shapes, scalars, self.multiply_adds(shapes["images"][1:], scalars)[0], 1)

    def _cost(self, shapes: Shapes, scalars: Scalars, multiply_adds: float, vectors: int) -> Cost:
        count = float(scalars["count"])
        traffic = count * elements(shapes["images"][1:]) + vectors * FLOAT_BYTES * shapes["w"][0]
        return Cost(2 * count * multiply_adds, traffic)

    def _scratch(self, shapes: Shapes, scalars: Scalars) -> int:
        return self.scratch(shapes["images"][1:], scalars)

    def _scratch_step(self, shapes: Shapes, scalars: Scalars) -> int:
        parts = micro_tiles(int(scalars["count"]))
        return self._scratch(shapes, scalars) + branch_floats(parts, shapes["w"][0])

    def _reference_step(self, inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
        losses, gradient = inputs["losses"].copy(), np.zeros(inputs["w"].size)
        for part, layers, labels, loss in self._micro_tiles(inputs, scalars):
            losses[int(scalars["index"]), part] = loss
            gradient += _gradient(layers, labels, scalars["scale"])
        return {"dw": gradient, "losses": losses}

    def _reference_evaluation(self, inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
        losses, correct = inputs["losses"].copy(), inputs["correct"].copy()
        for part, layers, labels, loss in self._micro_tiles(inputs, scalars):
            losses[int(scalars["index"]), part] = loss
            found = ACCURACY.reference({"logits": layers[-1].y, "labels": labels}, {})
            correct[int(scalars["index"]), part] = found["correct"][0]
        return {"losses": losses, "correct": correct}

    def _micro_tiles(self, inputs: Arrays, scalars: Scalars) -> list[tuple[int, list[_Layer], Any, float]]:
        """Number, layers, labels and loss of each micro-tile."""
        shapes = self.parameter_shapes(inputs["images"].shape[1:], scalars)
        cuts = np.cumsum([elements(shape) for shape in shapes])[:-1]
        parts = [p.reshape(s) for p, s in zip(np.split(inputs["w"], cuts), shapes, strict=True)]
        first, count, found = int(scalars["first"]), int(scalars["count"]), []
        for part in range(micro_tiles(count)):
            start = part * MICRO_TILE
            tile = {**inputs, "y": np.empty(min(MICRO_TILE, count - start))}
            made = GATHER.reference(tile, {"first": first + start})
            layers = _forward(self.kinds, parts, made["x"])
            arrays = {"logits": layers[-1].y, "labels": made["y"]}
            loss = SOFTMAX_CROSS_ENTROPY.reference(arrays, {"scale": 1.0})["loss"][0]
            found.append((part, layers, made["y"], float(loss)))
        return found


@final
@dataclass(frozen=True)
class _Layer:
    """A layer of the reference: input, output, parameters, and where the largest of each window stood."""

    kind: str
    x: Any
    y: Any
    parameters: tuple[Any, ...] = ()
    argmax: Any = None


def _forward(kinds: Sequence[str], parts: Sequence[Any], x: Any) -> list[_Layer]:
    layers, left = [], list(parts)
    for kind in kinds:
        if kind == "conv":
            w, b = left.pop(0), left.pop(0)
            y = CONV2D.reference({"x": x, "w": w}, _CONVOLUTION)["y"] + b[:, None, None]
            layers.append(_Layer(kind, x, y, (w, b)))
        elif kind == "linear":
            w, b = left.pop(0), left.pop(0)
            x = x.reshape(len(x), -1)
            layers.append(_Layer(kind, x, x @ w.T + b, (w, b)))
        elif kind == "pool":
            found = MAX_POOL2D.reference({"x": x}, _POOLING)
            layers.append(_Layer(kind, x, found["y"], (), found["argmax"]))
        else:
            layers.append(_Layer(kind, x, np.maximum(x, 0.0)))
        x = layers[-1].y
    return layers


def _gradient(layers: Sequence[_Layer], labels: Any, scale: float) -> Any:
    """Gradient to all parameters, each step by the operations' own references."""
    arrays = {"logits": layers[-1].y, "labels": labels}
    dy = SOFTMAX_CROSS_ENTROPY.reference(arrays, {"scale": scale})["dlogits"]
    found: list[Any] = []
    for layer in reversed(layers):
        dy = dy.reshape(layer.y.shape)
        if layer.kind == "conv":
            w, _ = layer.parameters
            made = {"x": layer.x, "dy": dy, "w": w, "dw": w, "dx": layer.x}
            found = [
                CONV2D_BACKWARD_WEIGHT.reference(made, _CONVOLUTION)["dw"],
                dy.sum(axis=(0, 2, 3)),
                *found,
            ]
            dy = CONV2D_BACKWARD_INPUT.reference(made, _CONVOLUTION)["dx"]
        elif layer.kind == "linear":
            found = [dy.T @ layer.x, dy.sum(axis=0), *found]
            dy = dy @ layer.parameters[0]
        elif layer.kind == "pool":
            made = {"dy": dy, "argmax": layer.argmax, "dx": layer.x}
            dy = MAX_POOL2D_BACKWARD.reference(made, _POOLING)["dx"]
        else:
            dy = dy * (layer.x > 0)
    return np.concatenate([part.reshape(-1) for part in found])


_INPUTS = (
    Operand("images", "r", 4, "uint8", constant=True),
    Operand("labels", "r", 1, "int32", constant=True),
    Operand("order", "r", 1, "int64", constant=True),
    Operand("mean", "r", 1, constant=True),
    Operand("std", "r", 1, constant=True),
    floats("w", "r", 1),
)
