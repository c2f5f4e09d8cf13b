"""Mini-batches of a whole network recorded with one task for each tile, and one that updates the parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dahl import ops
from dahl.context import Context
from dahl.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential
from dahl.network import Parameter
from dahl.ops.micro_tiles import MICRO_TILE, micro_tiles
from dahl.ops.operation import Operation, elements
from dahl.ops.simd import LANES
from dahl.recording import Recorder, Source, Update
from dahl.starpu import Step, TaskGraph
from dahl.tensor import Tensor

_CONVOLUTION = [Conv2d, ReLU, MaxPool2d]
IMAGES_AHEAD = 1024
"""Images of the mini-batches that are submitted before the first of them is done."""


@final
@dataclass(frozen=True)
class FusedOperations:
    """The operations that train and test a whole network, and the sizes that they take for it."""

    step: Operation
    evaluation: Operation
    sizes: dict[str, int]


def fused_operations(model: Sequential, image_shape: tuple[int, ...]) -> FusedOperations | None:
    """Find the operations that are a whole model for images (C, H, W); None where there are none."""
    found: list[int] = []
    for layer in model.layers:
        if isinstance(layer, Conv2d) and layer == Conv2d(layer.filters, 3):
            found.append(layer.filters)
        elif isinstance(layer, Linear):
            found.append(layer.units)
        elif not isinstance(layer, ReLU | Flatten) and layer != MaxPool2d(2):
            return None
    kinds = [type(layer) for layer in model.layers]
    if kinds == [*_CONVOLUTION, Flatten, Linear] and min(image_shape[1:]) >= 4:
        return FusedOperations(
            ops.CNN_STEP, ops.CNN_EVALUATION, dict(zip(("filters", "classes"), found, strict=True))
        )
    if kinds == [*_CONVOLUTION, *_CONVOLUTION, Flatten, Linear, ReLU, Linear]:
        fits = min(image_shape[1:]) >= 10 and all(size % LANES == 0 for size in found[:3])
        sizes = dict(zip(("first_filters", "second_filters", "units", "classes"), found, strict=True))
        return FusedOperations(ops.LENET_STEP, ops.LENET_EVALUATION, sizes) if fits else None
    return None


@final
class _History:
    """A number for each micro-tile of each mini-batch, by tile."""

    def __init__(self, context: Context, batches: int, batch: int, tile: int, dtype: Any) -> None:
        self._micro_tiles = sum(micro_tiles(count) for count in _tiles(batch, tile))
        self.tensor = context.per_tile((batches, micro_tiles(tile)), len(_tiles(batch, tile)), dtype=dtype)
        self.clear()

    def clear(self) -> None:
        """Set all to 0."""
        self.tensor.write(np.zeros(self.tensor.shape, self.tensor.dtype))

    def sums(self, first: int, until: int) -> np.ndarray:
        """By mini-batch, in an order that does not depend on the tile; as they are now."""
        own = [tile.handle.array[max(first, 0) : max(until, 0)] for tile in self.tensor.tiles]
        total: np.ndarray = np.concatenate(own, axis=1)[:, : self._micro_tiles].sum(axis=1)
        return total


def _sums(histories: Sequence[_History], first: int, until: int) -> np.ndarray:
    """Of the full mini-batches and of the shorter last one."""
    starts = np.cumsum([0, *(history.tensor.shape[1] for history in histories)])
    parts = [history.sums(first - at, until - at) for history, at in zip(histories, starts, strict=False)]
    return np.concatenate(parts)


def _tiles(batch: int, tile: int) -> list[int]:
    """Images of each tile of a mini-batch."""
    return [min(tile, batch - start) for start in range(0, batch, tile)]


@final
class StepRecorder(Recorder):
    """One task a tile for forward and backward pass, and one a mini-batch for the sum and the update.

    All parameters are one vector.
    """

    def __init__(
        self,
        context: Context,
        model: Sequential,
        image_shape: tuple[int, ...],
        operations: FusedOperations,
        *,
        batch_size: int,
        tile: int,
        update: Update,
        seed: int,
    ) -> None:
        self._context, self._batch_size, self._tile, self._update = context, batch_size, tile, update
        start = model.initial_values(image_shape, seed)
        self._shapes = {name: values.shape for name, values in start.items()}
        vector = np.concatenate([values.reshape(-1) for values in start.values()])
        zeros = np.zeros_like(vector)
        self._all = Parameter(
            "all",
            value=context.tensor(vector, name="parameters"),
            velocity=context.tensor(zeros, name="velocity"),
            gradient=context.tensor(zeros[:1], name="gradient"),
        )
        self._operations = operations
        self._losses: list[_History] = []
        self._tested: list[tuple[_History, _History]] = []

    @property
    def batches_ahead(self) -> int:
        """As many as take about a millisecond, so that submitting wakes up rarely."""
        return max(2, IMAGES_AHEAD // self._batch_size)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All of them in one."""
        return (self._all,)

    def weights(self) -> dict[str, np.ndarray]:
        """The vector's parts by name."""
        found, at, vector = {}, 0, self._all.value.numpy()
        for name, shape in self._shapes.items():
            found[name] = vector[at : at + elements(shape)].reshape(shape)
            at += elements(shape)
        return found

    def training(self, source: Source, batch: int, first_batch: int) -> TaskGraph:
        """Record a mini-batch of training."""
        tile, context = min(self._tile, batch), self._context
        tiles = _tiles(batch, tile)
        gradients = context.per_tile(self._all.value.shape, len(tiles), name="gradients")
        losses = _History(context, self._count(source, batch), batch, tile, np.float64)
        self._losses.append(losses)
        with context.record() as graph:
            operands = (*source.operands, self._all.value, gradients, losses.tensor)
            self._submit(self._operations.step, operands, tiles, first_batch, scale=1.0 / batch)
            self._submit_update(gradients)
        return graph

    def testing(self, source: Source, batch: int, first_batch: int) -> TaskGraph:
        """Record a mini-batch of testing, cut so that every worker has a share."""
        context = self._context
        share = math.ceil(batch / (2 * len(context.runtime.workers)))
        tile = min(batch, micro_tiles(share) * MICRO_TILE)
        tiles, count = _tiles(batch, tile), self._count(source, batch)
        losses, correct = (_History(context, count, batch, tile, kind) for kind in (np.float64, np.int64))
        self._tested.append((losses, correct))
        with context.record() as graph:
            operands = (*source.operands, self._all.value, losses.tensor, correct.tensor)
            self._submit(self._operations.evaluation, operands, tiles, first_batch)
        return graph

    def clear_losses(self) -> None:
        """Set the losses of an epoch to 0."""
        for losses in self._losses:
            losses.clear()

    def losses(self, first: int, until: int) -> np.ndarray:
        """By mini-batch."""
        return _sums(self._losses, first, until)

    def tested(self, batches: int) -> tuple[float, int]:
        """Loss and count of right answers."""
        losses, correct = (_sums(column, 0, batches) for column in zip(*self._tested, strict=True))
        return float(losses.sum()), int(correct.sum())

    def _count(self, source: Source, batch: int) -> int:
        """How many mini-batches of this size a pass has."""
        return source.count // self._batch_size if batch == self._batch_size else 1

    def _submit(
        self,
        operation: Operation,
        operands: Sequence[Tensor],
        tiles: Sequence[int],
        first_batch: int,
        **scalars: float,
    ) -> None:
        start, size = first_batch * self._batch_size, self._batch_size
        firsts = [Step(start + sum(tiles[:tile]), size) for tile in range(len(tiles))]
        own: dict[str, Any] = {
            "first": firsts,
            "index": Step(0, 1),
            "count": list(tiles),
            **self._operations.sizes,
            **scalars,
        }
        self._context.submit(operation, *operands, **own)

    def _submit_update(self, gradients: Tensor) -> None:
        everything, update = self._all, self._update
        self._context.submit(
            ops.SUM_AND_STEP,
            everything.value,
            everything.velocity,
            gradients,
            learning_rate=update.learning_rate,
            momentum=update.momentum,
            weight_decay=update.weight_decay,
        )
