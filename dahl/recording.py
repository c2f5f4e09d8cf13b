"""Mini-batches recorded as task graphs: what a recorder does for a trainer, and the one with a task for each layer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
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
from dahl.tiling import Tiling


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
    """The graphs of a pass over a split: of its full mini-batches, and of the shorter last one where there is one."""

    full: tuple[TaskGraph, ...]
    """Taken in turn by the full mini-batches."""
    count: int
    last: TaskGraph | None
    last_images: int
    first: TaskGraph | None = None
    """Of the first mini-batch, where it is another."""
    after_full: tuple[TaskGraph, ...] = ()
    """Submitted once after the last mini-batch, if that is a full one: in turn as those are."""
    after_last: TaskGraph | None = None
    """The same, if it is the shorter one."""

    @property
    def total(self) -> int:
        """Number of mini-batches, a shorter last one included."""
        return self.count + (self.last is not None)

    @property
    def tasks(self) -> int:
        """Tasks of a mini-batch."""
        return len(self.full[0] if self.full else self.last or [])

    @property
    def uses(self) -> list[tuple[TaskGraph, int]]:
        """Each graph, and how often a pass submits it."""
        uses: dict[int, tuple[TaskGraph, int]] = {}
        numbers = range(self.total)
        graphs = [self._of(number) for number in numbers] + [self._after(number) for number in numbers[-1:]]
        for graph in graphs:
            if graph is not None:
                uses[id(graph)] = graph, uses.get(id(graph), (graph, 0))[1] + 1
        return list(uses.values())

    def order(self, batches: int) -> tuple[list[TaskGraph], np.ndarray, np.ndarray]:
        """The graphs, and for each of the first mini-batches the number of its graph and the step."""
        graphs, numbers = list(self.full), np.arange(batches)
        which = numbers % max(len(graphs), 1)
        for number, graph in ((0, self.first), (self.count, self.last)):
            if graph is not None:
                which[number : number + 1] = len(graphs)
                graphs.append(graph)
        return graphs, which, np.where(numbers < self.count, numbers, 0)

    def submit(self, batch: int) -> None:
        """Submit the tasks of a mini-batch by its number."""
        graph = self._of(batch)
        assert graph is not None
        graph.submit(batch if batch < self.count else 0)

    def finish(self, batches: int) -> None:
        """Submit what has to follow so many mini-batches for the parameters to be those after the last of them."""
        graph = self._after(batches - 1)
        if graph is not None:
            graph.submit()

    def _of(self, batch: int) -> TaskGraph | None:
        if batch >= self.count:
            return self.last
        return self.first if batch == 0 and self.first else self.full[batch % len(self.full)]

    def _after(self, batch: int) -> TaskGraph | None:
        if batch >= self.count:
            return self.after_last
        return self.after_full[batch % len(self.after_full)] if self.after_full else None


def plain_batches(record: Callable[[Source, int, int], TaskGraph], source: Source, size: int) -> Batches:
    """Record a pass in mini-batches of ``size`` images that are all alike; ``record`` gets images and first number."""
    count, rest = divmod(source.count, size)
    full = (record(source, size, 0),) if count else ()
    return Batches(full, count, record(source, rest, count) if rest else None, rest)


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
    def training(self, source: Source) -> Batches:
        """Record an epoch of training, updates included."""

    @abstractmethod
    def testing(self, source: Source) -> Batches:
        """Record loss and count of right answers of all images, without an update."""

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

    @property
    @abstractmethod
    def is_fed(self) -> bool:
        """Whether workers submit the mini-batches, since the thread that would has no core of its own."""


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
        tiling: Tiling,
        update: Update,
        seed: int,
        images: tuple[int, int],
    ) -> None:
        self._context, self._model, self._shape = context, model, image_shape
        self._batch_size, self._tiling, self._update = batch_size, tiling, update
        self._parameters = model.parameters(context, image_shape, seed)
        train, test = (math.ceil(count / batch_size) for count in images)
        self._losses = self._slots(train, np.float64)
        self._test_losses, self._test_correct = self._slots(test, np.float64), self._slots(test, np.int64)

    @property
    def batches_ahead(self) -> int:
        """Two: their tasks are many."""
        return 2

    @property
    def is_fed(self) -> bool:
        """No: submitting a mini-batch takes longer than a worker waits."""
        return False

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Weight and bias of each layer."""
        return self._parameters

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of every parameter."""
        return {parameter.name: parameter.value.numpy() for parameter in self._parameters}

    def training(self, source: Source) -> Batches:
        """A graph for all full mini-batches."""
        return plain_batches(self._train, source, self._batch_size)

    def testing(self, source: Source) -> Batches:
        """A graph for all full mini-batches."""
        return plain_batches(self._test, source, self._batch_size)

    def _train(self, source: Source, batch: int, first_batch: int) -> TaskGraph:
        network, context = self._network(batch, training=True), self._context
        with context.record() as graph:
            self._gather(source, network, first_batch * self._batch_size)
            network.forward()
            network.loss_and_gradient()
            context.submit(ops.RECORD, self._losses, network.loss, index=Step(first_batch, 1))
            network.backward()
            network.update(self._update.learning_rate, self._update.momentum, self._update.weight_decay)
        return graph

    def _test(self, source: Source, batch: int, first_batch: int) -> TaskGraph:
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
        values: np.ndarray = self._losses.tiles[0].handle.so_far()[first:until]
        return values

    def tested(self, batches: int) -> tuple[float, int]:
        """Loss and count of right answers."""
        correct = self._test_correct.numpy()[:batches].sum()
        return float(self._test_losses.numpy()[:batches].sum()), int(correct)

    def _slots(self, batches: int, dtype: Any) -> Tensor:
        return self._context.tensor(np.zeros(batches, dtype), name="by batch")

    def _network(self, batch: int, *, training: bool) -> Network:
        tiles = self._tiling.tiles(batch)
        return self._model.network(
            self._context, self._parameters, self._shape, batch, tiles, training=training
        )

    def _gather(self, source: Source, network: Network, first: int) -> None:
        """Fill a network's input from the images ``first + step * batch_size`` and on."""
        starts = np.cumsum([0, *(shape[0] for shape in network.input.tile_shapes)])[:-1]
        firsts = [Step(first + int(start), self._batch_size) for start in starts]
        operands = (*source.operands, network.input, network.labels)
        self._context.submit(ops.GATHER, *operands, first=firsts)
