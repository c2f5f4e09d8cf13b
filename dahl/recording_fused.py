"""Mini-batches of a whole network recorded with one task for each tile, and one that updates the parameters."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dahl import ops
from dahl.context import Context
from dahl.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential
from dahl.network import Parameter
from dahl.ops.micro_tiles import MICRO_TILE, micro_tiles
from dahl.ops.operation import FLOAT_BYTES, Operation, elements
from dahl.ops.simd import LANES
from dahl.recording import Batches, Recorder, Source, Update, plain_batches
from dahl.starpu import Kernel, Step, TaskGraph, Worker
from dahl.tensor import Tensor
from dahl.tiling import Tiling, tile_ends

_CONVOLUTION = [Conv2d, ReLU, MaxPool2d]
IMAGES_AHEAD = (1024, 8192)
COPY_BYTES = 2**18
"""Largest parameters that each worker has a copy of: what stays in a core's own cache beside all else."""
BATCHES_FED = 8
FLOPS_AHEAD = 5e8
"""What is submitted before the first of it is done: so many flops, but no fewer and no more images than these.

The thread that submits wakes up and reports after each half of it, at the expense of a worker where every core has one.
"""


@final
@dataclass(frozen=True)
class FusedOperations:
    """The operations that train and test a whole network, and the sizes that they take for it."""

    step: Operation
    update_step: Operation
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
            ops.CNN_STEP,
            ops.CNN_UPDATE_STEP,
            ops.CNN_EVALUATION,
            dict(zip(("filters", "classes"), found, strict=True)),
        )
    if kinds == [*_CONVOLUTION, *_CONVOLUTION, Flatten, Linear, ReLU, Linear]:
        fits = min(image_shape[1:]) >= 10 and all(size % LANES == 0 for size in found[:3])
        sizes = dict(zip(("first_filters", "second_filters", "units", "classes"), found, strict=True))
        lenet = ops.LENET_STEP, ops.LENET_UPDATE_STEP, ops.LENET_EVALUATION
        return FusedOperations(*lenet, sizes) if fits else None
    return None


@final
class _History:
    """A number for each micro-tile of each mini-batch, by tile."""

    def __init__(self, context: Context, batches: int, tiles: Sequence[int], dtype: Any) -> None:
        self._columns = [micro_tiles(count) for count in tiles]
        self.tensor = context.per_tile((batches, max(self._columns)), len(tiles), dtype=dtype)
        self.clear()

    def clear(self) -> None:
        """Set all to 0."""
        self.tensor.write(np.zeros(self.tensor.shape, self.tensor.dtype))

    def sums(self, first: int, until: int) -> np.ndarray:
        """By mini-batch, in an order that does not depend on the tile; as they are now."""
        own = [
            tile.handle.so_far()[max(first, 0) : max(until, 0), :columns]
            for tile, columns in zip(self.tensor.tiles, self._columns, strict=True)
        ]
        total: np.ndarray = np.concatenate(own, axis=1).sum(axis=1)
        return total


def _sums(histories: Sequence[_History], first: int, until: int) -> np.ndarray:
    """Of the full mini-batches and of the shorter last one."""
    starts = np.cumsum([0, *(history.tensor.shape[1] for history in histories)])
    parts = [history.sums(first - at, until - at) for history, at in zip(histories, starts, strict=False)]
    return np.concatenate(parts)


class FusedRecorder(Recorder):
    """One task a tile for forward and backward pass; all parameters are one vector."""

    def __init__(
        self,
        context: Context,
        model: Sequential,
        image_shape: tuple[int, ...],
        operations: FusedOperations,
        *,
        batch_size: int,
        tiling: Tiling,
        update: Update,
        seed: int,
    ) -> None:
        self._context, self._batch_size, self._tiling = context, batch_size, tiling
        self._rates: dict[str, Any] = {
            "learning_rate": update.learning_rate,
            "momentum": update.momentum,
            "weight_decay": update.weight_decay,
        }
        start = model.initial_values(image_shape, seed)
        self._shapes = {name: values.shape for name, values in start.items()}
        self._start = np.concatenate([values.reshape(-1) for values in start.values()])
        self._operations = operations
        shapes = {"images": (1, *image_shape), "w": self._start.shape}
        self._image_flops = operations.step.cost(shapes, {"count": 1, **operations.sizes}).flops
        self._losses: list[_History] = []
        self._tested: list[tuple[_History, _History]] = []
        self._all = self._lay_out()

    @abstractmethod
    def _lay_out(self) -> Parameter:
        """Make what is trained from the start values."""

    @property
    def is_fed(self) -> bool:
        """Where every core has a worker, and every worker a tile."""
        runtime = self._context.runtime
        tiles = len(self._tiling.tiles(self._batch_size))
        return runtime.every_core_works and tiles >= len(runtime.workers) > 1

    @property
    def batches_ahead(self) -> int:
        """So many that submitting wakes up rarely; a few where workers submit when they wait."""
        if self.is_fed:
            return BATCHES_FED
        least, most = IMAGES_AHEAD
        images = min(max(least, int(FLOPS_AHEAD / self._image_flops)), most)
        return max(2, images // self._batch_size)

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

    def testing(self, source: Source) -> Batches:
        """Mini-batches cut so that every worker has a share."""
        return plain_batches(self._test, source, self._batch_size)

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

    def _test(self, source: Source, batch: int, first_batch: int) -> TaskGraph:
        context = self._context
        share = math.ceil(batch / (2 * len(context.runtime.workers)))
        tiles, count = Tiling((micro_tiles(share) * MICRO_TILE,)).tiles(batch), self._count(source, batch)
        losses, correct = (_History(context, count, tiles, kind) for kind in (np.float64, np.int64))
        self._tested.append((losses, correct))
        with context.record() as graph:
            operands = (*source.operands, self._all.value, losses.tensor, correct.tensor)
            context.submit(self._operations.evaluation, *operands, **self._which(tiles, first_batch))
        return graph

    def _history(self, source: Source, batch: int) -> _History:
        """Where the losses of mini-batches of a size go."""
        tiles = self._tiling.tiles(batch)
        losses = _History(self._context, self._count(source, batch), tiles, np.float64)
        self._losses.append(losses)
        return losses

    def _count(self, source: Source, batch: int) -> int:
        """How many mini-batches of this size a pass has."""
        return source.count // self._batch_size if batch == self._batch_size else 1

    def _ends(self, batch: int) -> Tensor:
        """Where the gradients of a mini-batch's tiles stand in the tree that adds them up."""
        return self._context.tensor(np.array(tile_ends(self._tiling.tiles(batch)), np.int64), name="ends")

    def _which(self, tiles: Sequence[int], first_batch: int) -> dict[str, Any]:
        """The scalars that say which images the tasks of a mini-batch take, and the network's sizes."""
        start, size = first_batch * self._batch_size, self._batch_size
        firsts = [Step(start + sum(tiles[:tile]), size) for tile in range(len(tiles))]
        return {"first": firsts, "index": Step(0, 1), "count": list(tiles), **self._operations.sizes}


@final
class StepRecorder(FusedRecorder):
    """One more task a mini-batch for the sum and the update."""

    def training(self, source: Source) -> Batches:
        """A graph for all full mini-batches."""
        return plain_batches(self._train, source, self._batch_size)

    def _lay_out(self) -> Parameter:
        context, zeros = self._context, np.zeros_like(self._start)
        return Parameter(
            "all",
            value=context.tensor(self._start, name="parameters"),
            velocity=context.tensor(zeros, name="velocity"),
            gradient=context.tensor(zeros[:1], name="gradient"),
        )

    def _train(self, source: Source, batch: int, first_batch: int) -> TaskGraph:
        context, everything = self._context, self._all
        tiles, ends = self._tiling.tiles(batch), self._ends(batch)
        gradients = context.per_tile(everything.value.shape, len(tiles), name="gradients")
        losses = self._history(source, batch)
        with context.record() as graph:
            operands = (*source.operands, everything.value, gradients, losses.tensor)
            which = self._which(tiles, first_batch)
            context.submit(self._operations.step, *operands, **which, scale=1.0 / batch)
            operands = (ends, everything.value, everything.velocity, gradients)
            context.submit(ops.SUM_AND_STEP, *operands, **self._rates)
        return graph


@final
class UpdateStepRecorder(FusedRecorder):
    """Each tile's task begins with the last mini-batch's update, on parameters of its own.

    So nothing stands between two mini-batches but the wait for the last gradient. What the update computes is the same
    for all tiles, bit for bit. Gradients have two places, taken in turn: one is read while the other is written.
    The last update of an epoch is a task for each of the copies.
    """

    def training(self, source: Source) -> Batches:
        """Two graphs in turn, one for the first mini-batch, one for what is left, and the last update after each."""
        count, rest = divmod(source.count, self._batch_size)
        full: tuple[TaskGraph, ...] = ()
        first = last = after_last = None
        after_full: tuple[TaskGraph, ...] = ()
        if count:
            losses = self._history(source, self._batch_size)
            both = [
                self._train(source, self._batch_size, 0, turn, losses, pending=pending)
                for turn, pending in ((0, True), (1, True), (0, False))
            ]
            full, first = tuple(both[:2]), both[2]
            after_full = tuple(self._settle(self._gradients[turn], self._batch_size) for turn in (0, 1))
        if rest:
            losses, turn = self._history(source, rest), count % 2
            last = self._train(source, rest, count, turn, losses, pending=count > 0)
            after_last = self._settle(_part(self._gradients[turn], 0, self._tiles_of(rest)), rest)
        return Batches(full, count, last, rest, first, after_full, after_last)

    def _lay_out(self) -> Parameter:
        context, copies = self._context, self._tiles_of(self._batch_size)
        shape, self._copies = self._start.shape, copies
        self._values = context.per_tile(shape, copies, name="parameters")
        self._velocities = context.per_tile(shape, copies, name="velocities")
        self._gradients = [context.per_tile(shape, copies, name="gradients") for _ in range(2)]
        self._values.write(np.tile(self._start, (copies, 1)))
        self._velocities.write(np.zeros(self._velocities.shape, np.float32))
        value, velocity, gradient = (
            Tensor(shape, tensor.tiles[:1], tensor.dtype, tensor.name)
            for tensor in (self._values, self._velocities, self._gradients[0])
        )
        return Parameter("all", value=value, velocity=velocity, gradient=gradient)

    def _tiles_of(self, batch: int) -> int:
        return len(self._tiling.tiles(batch))

    def _train(
        self, source: Source, batch: int, first_batch: int, turn: int, losses: _History, *, pending: bool
    ) -> TaskGraph:
        tiles, ends = self._tiling.tiles(batch), self._ends(self._batch_size)
        items, own = self._gradients[1 - turn], len(tiles)
        mine = (_part(tensor, 0, own) for tensor in (self._values, self._velocities, self._gradients[turn]))
        with self._context.record() as graph:
            self._context.submit(
                self._operations.update_step,
                *source.operands,
                ends,
                *mine,
                losses.tensor,
                items,
                **self._which(tiles, first_batch),
                **self._rates,
                scale=1.0 / batch,
                pending=int(pending),
            )
            if pending and own < self._copies:
                self._update(own, ends, items)
        return graph

    def _settle(self, gradients: Tensor, batch: int) -> TaskGraph:
        with self._context.record() as graph:
            self._update(0, self._ends(batch), gradients)
        return graph

    def _update(self, first: int, ends: Tensor, gradients: Tensor) -> None:
        """Update the copies from a number on."""
        mine = (_part(tensor, first, self._copies) for tensor in (self._values, self._velocities))
        self._context.submit(ops.SUM_AND_STEP, ends, *mine, gradients, **self._rates)


def _part(tensor: Tensor, first: int, until: int) -> Tensor:
    """Some tiles of a tensor made by ``Context.per_tile``."""
    tiles = tensor.tiles[first:until]
    return Tensor((len(tiles), *tensor.shape[1:]), tiles, tensor.dtype, tensor.name)


def fused_recorder(
    context: Context,
    model: Sequential,
    image_shape: tuple[int, ...],
    operations: FusedOperations,
    *,
    batch_size: int,
    tiling: Tiling,
    **layout: Any,
) -> FusedRecorder:
    """The recorder whose tasks wait the least; the bits are the same.

    The update is part of the steps where a mini-batch is one tile, or where each worker has one at most: all copies are
    updated at once. More of them would be updated one after the other, and large ones cost more than the wait.
    Copies that a CPU core and a GPU update would drift apart by roundings, so there it is one.
    """
    runtime, tiles = context.runtime, len(tiling.tiles(batch_size))
    weights = sum(values.size for values in model.initial_values(image_shape, 0).values())
    in_steps = _updates_in_steps(weights, tiles, len(runtime.workers)) and (
        tiles == 1 or round_alike(runtime.workers)
    )
    step_recorder: type[FusedRecorder] = StepRecorder
    if in_steps and not runtime.simulated:
        step_recorder = UpdateStepRecorder
    return step_recorder(
        context, model, image_shape, operations, batch_size=batch_size, tiling=tiling, **layout
    )


def round_alike(workers: Sequence[Worker]) -> bool:
    """Whether all workers give a task the same bits: CPU cores do, and GPUs of one class."""
    return len({worker.arch if worker.arch == "cpu" else worker.worker_class for worker in workers}) <= 1


def _updates_in_steps(weights: int, tiles: int, workers: int) -> bool:
    small = weights * FLOAT_BYTES <= COPY_BYTES
    return tiles == 1 or (tiles <= workers and small)


def fused_kernels(
    model: Sequential, image_shape: tuple[int, ...], tile_counts: Sequence[int], workers: int
) -> list[Kernel]:
    """What a native run of fused tasks compiles where its mini-batches have so many tiles; what takes longest first."""
    operations = fused_operations(model, image_shape)
    if operations is None:
        return []
    weights = sum(values.size for values in model.initial_values(image_shape, 0).values())
    in_steps = {_updates_in_steps(weights, tiles, workers) for tiles in tile_counts}
    steps = [operations.update_step] * (True in in_steps) + [operations.step] * (False in in_steps)
    return [operation.kernel for operation in (*steps, operations.evaluation, ops.SUM_AND_STEP)]
