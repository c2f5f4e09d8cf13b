"""Mini-batches recorded as task graphs: what a recorder does for a trainer, and the one with a task for each layer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dahl import ops
from dahl.context import Context
from dahl.datasets import Dataset, Split
from dahl.layers import Sequential
from dahl.network import Network, Parameter
from dahl.starpu import Step, TaskGraph
from dahl.tensor import Tensor


@final
@dataclass(frozen=True)
class Update:
    """What the optimiser does after each mini-batch."""

    learning_rate: float
    momentum: float
    weight_decay: float


@final
class Source:
    """A split in StarPU's care, with the order in which its images are taken."""

    def __init__(self, context: Context, split: Split, dataset: Dataset, name: str) -> None:
        self.count = len(split.labels)
        self.images = context.tensor(split.images, name=f"{name} images", copy=False)
        self.labels = context.tensor(
            np.ascontiguousarray(split.labels, np.int32), name=f"{name} labels", copy=False
        )
        self.order = context.tensor(np.arange(self.count, dtype=np.int64), name=f"{name} order")
        self.mean = context.tensor(np.asarray(dataset.mean, np.float32), name="mean")
        self.std = context.tensor(np.asarray(dataset.std, np.float32), name="std")

    @property
    def operands(self) -> tuple[Tensor, ...]:
        """Images, labels, order, mean and std, as kernels take them."""
        return self.images, self.labels, self.order, self.mean, self.std


@final
@dataclass(frozen=True)
class Batches:
    """The graph of the full mini-batches of a pass, and of the shorter last one where there is one."""

    full: TaskGraph | None
    count: int
    last: TaskGraph | None
    last_images: int

    @property
    def total(self) -> int:
        """Number of mini-batches, a shorter last one included."""
        return self.count + (self.last is not None)

    @property
    def tasks(self) -> int:
        """Tasks of a mini-batch."""
        return len(self.full or self.last or [])

    def submit(self, batch: int) -> None:
        """Submit the tasks of a mini-batch by its number."""
        if batch < self.count:
            assert self.full is not None
            self.full.submit(batch)
        else:
            assert self.last is not None
            self.last.submit(0)


class Recorder(ABC):
    """Lays a model out on a context: its parameters, and the graphs of training and testing."""

    @property
    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """The trained tensors."""

    @abstractmethod
    def weights(self) -> dict[str, np.ndarray]:
        """A copy of every weight and bias by name, float32; waits for the tasks that write them."""

    @abstractmethod
    def training(self, source: Source, batch: int, first_batch: int) -> TaskGraph:
        """Record the mini-batch number ``first_batch + step`` of ``batch`` images, update included."""

    @abstractmethod
    def testing(self, source: Source, batch: int, first_batch: int) -> TaskGraph:
        """Record loss and count of right answers of a mini-batch, without an update."""

    @abstractmethod
    def clear_losses(self) -> None:
        """Set the losses of an epoch to 0."""

    @abstractmethod
    def losses(self, first: int, until: int) -> np.ndarray:
        """The sum of the images' losses of some mini-batches of training, as they are now."""

    @abstractmethod
    def tested(self, batches: int) -> tuple[float, int]:
        """The sum of the losses and the number of right answers over the first mini-batches of testing."""

    @property
    @abstractmethod
    def batches_ahead(self) -> int:
        """How many mini-batches may be submitted before the first of them is done."""

    def batches(self, source: Source, size: int, *, training: bool) -> Batches:
        """Record a pass over a split in mini-batches of ``size`` images."""
        record = self.training if training else self.testing
        count, rest = divmod(source.count, size)
        full = record(source, size, 0) if count else None
        return Batches(full, count, record(source, rest, count) if rest else None, rest)


@final
class LayerRecorder(Recorder):
    """A task for each tile of each layer."""

    def __init__(
        self,
        context: Context,
        model: Sequential,
        image_shape: tuple[int, ...],
        *,
        batch_size: int,
        tile: int,
        update: Update,
        seed: int,
        images: tuple[int, int],
    ) -> None:
        self._context, self._model, self._shape = context, model, image_shape
        self._batch_size, self._tile, self._update = batch_size, tile, update
        self._parameters = model.parameters(context, image_shape, seed)
        train, test = (math.ceil(count / batch_size) for count in images)
        self._losses = self._slots(train, np.float64)
        self._test_losses, self._test_correct = self._slots(test, np.float64), self._slots(test, np.int64)

    @property
    def batches_ahead(self) -> int:
        """Two: their tasks are many."""
        return 2

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Weight and bias of each layer."""
        return self._parameters

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of every parameter."""
        return {parameter.name: parameter.value.numpy() for parameter in self._parameters}

    def training(self, source: Source, batch: int, first_batch: int) -> TaskGraph:
        """Record a mini-batch of training."""
        network, context = self._network(batch, training=True), self._context
        with context.record() as graph:
            self._gather(source, network, first_batch * self._batch_size)
            network.forward()
            network.loss_and_gradient()
            context.submit(ops.RECORD, self._losses, network.loss, index=Step(first_batch, 1))
            network.backward()
            network.update(self._update.learning_rate, self._update.momentum, self._update.weight_decay)
        return graph

    def testing(self, source: Source, batch: int, first_batch: int) -> TaskGraph:
        """Record a mini-batch of testing."""
        network, context = self._network(batch, training=False), self._context
        with context.record() as graph:
            self._gather(source, network, first_batch * self._batch_size)
            network.forward()
            network.measure_loss()
            network.count_correct()
            context.submit(ops.RECORD, self._test_losses, network.loss, index=Step(first_batch, 1))
            context.submit(ops.RECORD_COUNT, self._test_correct, network.correct, index=Step(first_batch, 1))
        return graph

    def clear_losses(self) -> None:
        """Set the losses of an epoch to 0."""
        self._losses.write(np.zeros(self._losses.shape))

    def losses(self, first: int, until: int) -> np.ndarray:
        """By mini-batch."""
        values: np.ndarray = self._losses.tiles[0].handle.array[first:until]
        return values

    def tested(self, batches: int) -> tuple[float, int]:
        """Loss and count of right answers."""
        correct = self._test_correct.numpy()[:batches].sum()
        return float(self._test_losses.numpy()[:batches].sum()), int(correct)

    def _slots(self, batches: int, dtype: Any) -> Tensor:
        return self._context.tensor(np.zeros(batches, dtype), name="by batch")

    def _network(self, batch: int, *, training: bool) -> Network:
        tile = min(self._tile, batch)
        return self._model.network(
            self._context, self._parameters, self._shape, batch, tile, training=training
        )

    def _gather(self, source: Source, network: Network, first: int) -> None:
        """Fill a network's input from the images ``first + step * batch_size`` and on."""
        starts = np.cumsum([0, *(shape[0] for shape in network.input.tile_shapes)])[:-1]
        firsts = [Step(first + int(start), self._batch_size) for start in starts]
        operands = (*source.operands, network.input, network.labels)
        self._context.submit(ops.GATHER, *operands, first=firsts)
