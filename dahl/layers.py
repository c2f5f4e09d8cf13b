"""Layers and the models that are built from them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np

from dahl.network import (
    Buffers,
    ConvStage,
    FlattenStage,
    LinearStage,
    Network,
    Parameter,
    PoolStage,
    ReluStage,
    Stage,
    Value,
)
from dahl.ops.conv2d import convolved_shape
from dahl.ops.max_pool2d import pooled_shape
from dahl.ops.operation import Shape, ShapeError, elements, show
from dahl.tiling import Tiling

if TYPE_CHECKING:
    from dahl.context import Context

__all__ = [
    "Conv2d",
    "Flatten",
    "Layer",
    "LayerRow",
    "Linear",
    "MaxPool2d",
    "Network",
    "Parameter",
    "ReLU",
    "Sequential",
]


class Layer(ABC):
    """A step of a model. Shapes are those of one image, without the batch."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What the layer is, in a word and its sizes; the word names its parameters."""

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """The output's shape for an input's; raises ShapeError where the layer does not fit."""

    @abstractmethod
    def parameter_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        """Shapes of weight and bias, or nothing."""

    @abstractmethod
    def connect(self, buffers: Buffers, x: Value, shape: Shape, parameters: Sequence[Parameter]) -> Stage:
        """The layer between the value `x` and an output of `shape` of its own."""


def _require_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def _require_image(label: str, shape: Shape) -> None:
    if len(shape) != 3:
        raise ShapeError(f"{label} takes images of channels x height x width, got {show(shape)}")


@final
@dataclass(frozen=True)
class Conv2d(Layer):
    """Convolution with a square kernel, and a bias: (C, H, W) -> (filters, H', W')."""

    filters: int
    kernel_size: int = 3
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        _require_positive(filters=self.filters, kernel_size=self.kernel_size, stride=self.stride)
        if self.padding < 0:
            raise ValueError(f"padding must not be negative, got {self.padding}")

    @property
    def label(self) -> str:
        """What the layer is."""
        return f"conv {self.filters} {self.kernel_size}x{self.kernel_size}"

    def output_shape(self, shape: Shape) -> Shape:
        """(filters, H', W') with H' = (H + 2 padding - kernel_size) // stride + 1."""
        _require_image(self.label, shape)
        weight = (self.filters, shape[0], self.kernel_size, self.kernel_size)
        return convolved_shape((1, *shape), weight, self.stride, self.padding)[1:]

    def parameter_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        """Weight (filters, C, kernel_size, kernel_size) and bias (filters,)."""
        return (self.filters, shape[0], self.kernel_size, self.kernel_size), (self.filters,)

    def connect(self, buffers: Buffers, x: Value, shape: Shape, parameters: Sequence[Parameter]) -> Stage:
        """The layer between two values."""
        return ConvStage(buffers, x, shape, parameters, self.stride, self.padding)


@final
@dataclass(frozen=True)
class Linear(Layer):
    """Fully connected layer with a bias: (inputs,) -> (units,)."""

    units: int

    def __post_init__(self) -> None:
        _require_positive(units=self.units)

    @property
    def label(self) -> str:
        """What the layer is."""
        return f"linear {self.units}"

    def output_shape(self, shape: Shape) -> Shape:
        """(units,)."""
        if len(shape) != 1:
            raise ShapeError(
                f"{self.label} takes one row per image, got {show(shape)}: put Flatten before it"
            )
        return (self.units,)

    def parameter_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        """Weight (units, inputs) and bias (units,)."""
        return (self.units, shape[0]), (self.units,)

    def connect(self, buffers: Buffers, x: Value, shape: Shape, parameters: Sequence[Parameter]) -> Stage:
        """The layer between two values."""
        return LinearStage(buffers, x, shape, parameters)


@final
@dataclass(frozen=True)
class ReLU(Layer):
    """max(x, 0)."""

    @property
    def label(self) -> str:
        """What the layer is."""
        return "relu"

    def output_shape(self, shape: Shape) -> Shape:
        """The input's shape."""
        if len(shape) not in (1, 3):
            raise ShapeError(f"relu takes images or one row per image, got {show(shape)}")
        return shape

    def parameter_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        """None."""
        return ()

    def connect(self, buffers: Buffers, x: Value, shape: Shape, parameters: Sequence[Parameter]) -> Stage:
        """The layer between two values."""
        return ReluStage(buffers, x, shape)


@final
@dataclass(frozen=True)
class MaxPool2d(Layer):
    """The largest of each square of `size` x `size`; what is left over at the far edges is left out."""

    size: int = 2

    def __post_init__(self) -> None:
        _require_positive(size=self.size)

    @property
    def label(self) -> str:
        """What the layer is."""
        return f"max-pool {self.size}"

    def output_shape(self, shape: Shape) -> Shape:
        """(C, H // size, W // size)."""
        _require_image(self.label, shape)
        return pooled_shape((1, *shape), self.size, self.size)[1:]

    def parameter_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        """None."""
        return ()

    def connect(self, buffers: Buffers, x: Value, shape: Shape, parameters: Sequence[Parameter]) -> Stage:
        """The layer between two values."""
        return PoolStage(buffers, x, shape, self.size)


@final
@dataclass(frozen=True)
class Flatten(Layer):
    """(C, H, W) -> (C * H * W,), the columns of a row of pixels fastest."""

    @property
    def label(self) -> str:
        """What the layer is."""
        return "flatten"

    def output_shape(self, shape: Shape) -> Shape:
        """(number of elements,)."""
        return (elements(shape),)

    def parameter_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        """None."""
        return ()

    def connect(self, buffers: Buffers, x: Value, shape: Shape, parameters: Sequence[Parameter]) -> Stage:
        """The layer between two values."""
        return FlattenStage(x)


class LayerRow(NamedTuple):
    """A line of a model's table."""

    layer: str
    output_shape: Shape
    parameters: int


@final
@dataclass(frozen=True)
class Sequential:
    """A model: layers one after the other, the last one giving a logit for each class."""

    layers: tuple[Layer, ...]
    name: str = "model"

    def _shapes(self, input_shape: Shape) -> list[tuple[Layer, Shape, Shape]]:
        """Every layer with its input's and its output's shape."""
        rows, shape = [], tuple(input_shape)
        for position, layer in enumerate(self.layers, start=1):
            try:
                out = layer.output_shape(shape)
            except ShapeError as error:
                where = f"{self.name} on images of {show(input_shape)}: layer {position} ({layer.label})"
                raise ShapeError(f"{where} cannot take {show(shape)}: {error}") from error
            rows.append((layer, shape, out))
            shape = out
        return rows

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for images of (C, H, W).

        Raises ShapeError, naming the layer and the sizes, where the images do not fit: mostly, are too small.
        """
        rows = self._shapes(input_shape)
        return rows[-1][2] if rows else tuple(input_shape)

    def describe(self, input_shape: Shape) -> list[LayerRow]:
        """One row per layer: what it is, its output's shape, its number of parameters."""
        return [
            LayerRow(layer.label, out, sum(map(elements, layer.parameter_shapes(shape))))
            for layer, shape, out in self._shapes(input_shape)
        ]

    def with_classes(self, classes: int) -> Sequential:
        """The same model with one output per class: the last layer, a Linear, gets that many units."""
        if not self.layers or not isinstance(self.layers[-1], Linear):
            raise ValueError(f"{self.name} does not end in Linear: its number of classes is fixed")
        return replace(self, layers=(*self.layers[:-1], Linear(classes)))

    def initial_values(self, input_shape: Shape, seed: int) -> dict[str, np.ndarray]:
        """Values to start from, by name, uniform in +-1 / sqrt(fan_in) for weight and bias alike: PyTorch's defaults.

        Drawn in float64 from `numpy.random.Generator(PCG64(seed))` and rounded to float32:
        layer after layer, the weight before the bias, in C order.
        Names are conv1.weight, conv1.bias, conv2.weight, ..., linear1.weight and so on.
        """
        generator = np.random.Generator(np.random.PCG64(seed))
        seen: Counter[str] = Counter()
        made = {}
        for layer, shape, _ in self._shapes(input_shape):
            shapes = layer.parameter_shapes(shape)
            if not shapes:
                continue
            word = layer.label.split()[0]
            seen[word] += 1
            bound = 1.0 / math.sqrt(elements(shapes[0][1:]))
            for part, size in zip(("weight", "bias"), shapes, strict=True):
                values = generator.uniform(-bound, bound, size).astype(np.float32)
                made[f"{word}{seen[word]}.{part}"] = values
        return made

    def parameters(self, ctx: Context, input_shape: Shape, seed: int) -> tuple[Parameter, ...]:
        """New parameters of `initial_values`."""
        start = self.initial_values(input_shape, seed)
        return tuple(_parameter(ctx, name, values) for name, values in start.items())

    def network(
        self,
        ctx: Context,
        parameters: Sequence[Parameter],
        input_shape: Shape,
        batch: int,
        tile: int | Sequence[int],
        training: bool = True,
    ) -> Network:
        """Lay the model out for batches of one size, in tiles of `tile` images (the last may be shorter), or of these.

        Networks may share parameters: one for whole batches, one for what is left, one for evaluation.
        """
        tiles = _tiles(batch, tile)
        rows = self._shapes(input_shape)
        expected = [size for layer, shape, _ in rows for size in layer.parameter_shapes(shape)]
        found = [tuple(parameter.value.shape) for parameter in parameters]
        if found != expected:
            raise ShapeError(f"{self.name} needs parameters of shapes {expected}, got {found}")
        buffers = Buffers(ctx, tiles, training)
        x = value = Value(buffers.tensor(tuple(input_shape), "input"), None, writable=False)
        stages, left = [], list(parameters)
        for layer, shape, out in rows:
            count = len(layer.parameter_shapes(shape))
            own, left = left[:count], left[count:]
            stages.append(layer.connect(buffers, value, out, own))
            value = stages[-1].output
        return Network(buffers, x, stages, parameters)


def _tiles(batch: int, tile: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(tile, int):
        _require_positive(batch=batch, tile=tile)
        if tile > batch:
            raise ValueError(f"tile must be at most the batch, got a tile of {tile} for a batch of {batch}")
        return Tiling((tile,)).tiles(batch)
    if sum(tile) != batch:
        raise ValueError(f"the tiles {tuple(tile)} have {sum(tile)} images for a batch of {batch}")
    return tuple(tile)


def _parameter(ctx: Context, name: str, values: np.ndarray) -> Parameter:
    zeros = np.zeros_like(values)
    return Parameter(
        name,
        value=ctx.tensor(values, name=name),
        velocity=ctx.tensor(zeros, name=f"{name}.velocity"),
        gradient=ctx.tensor(zeros, name=f"{name}.gradient"),
    )
