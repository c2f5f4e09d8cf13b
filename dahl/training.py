"""Training a model: recorded mini-batch graphs, epochs, evaluation, and a digest of the weights.

A mini-batch is cut into tiles; each tile writes gradients of its own and one task sums them in a fixed order. So the
weights after an epoch do not depend on the scheduler or on the number of workers, bit for bit.
"""

from __future__ import annotations

import hashlib
import math
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

BATCHES_AHEAD = 2
"""How many mini-batches may be submitted before the first of them is done."""


class LossIsNotANumberError(ArithmeticError):
    """The loss became NaN or infinite: training diverged."""


@final
@dataclass(frozen=True)
class Hyperparameters:
    """What is trained how: a mini-batch of ``batch_size`` images in tiles of ``tile``, SGD with momentum."""

    batch_size: int = 64
    tile: int = 16
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 1 <= self.tile <= self.batch_size:
            raise ValueError(f"tile must be from 1 to batch_size ({self.batch_size}), got {self.tile}")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be from 0 to below 1, got {self.momentum}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay must be 0 or more, got {self.weight_decay}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")


@final
@dataclass(frozen=True)
class BatchProgress:
    """How far an epoch is. ``loss`` is the mean over the images so far; NaN in a simulation."""

    epoch: int
    images: int
    images_total: int
    seconds: float
    loss: float


@final
@dataclass(frozen=True)
class EpochResult:
    """One epoch: its span on StarPU's clock and the mean loss over its images (NaN in a simulation)."""

    epoch: int
    images: int
    start_s: float
    end_s: float
    loss: float

    @property
    def seconds(self) -> float:
        """Length of the epoch, real or simulated."""
        return self.end_s - self.start_s


@final
@dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracy over a split, with its span on StarPU's clock; NaN in a simulation."""

    loss: float
    accuracy: float
    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """Length of the evaluation, real or simulated."""
        return self.end_s - self.start_s


@final
class _Source:
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

    def gather(self, context: Context, network: Network, first: int, stride: int) -> None:
        """Fill a network's input from the images ``first + step * stride`` and on."""
        starts = np.cumsum([0, *(shape[0] for shape in network.input.tile_shapes)])[:-1]
        firsts = [Step(first + int(start), stride) for start in starts]
        context.submit(
            ops.GATHER,
            self.images,
            self.labels,
            self.order,
            self.mean,
            self.std,
            network.input,
            network.labels,
            first=firsts,
        )


@final
@dataclass(frozen=True)
class _Batches:
    """The graph of the full mini-batches of a pass, and of the shorter last one where there is one."""

    full: TaskGraph | None
    count: int
    last: TaskGraph | None
    last_images: int


@final
class Trainer:
    """Trains ``model`` on ``dataset``; parameters start from ``hyperparameters.seed``."""

    def __init__(
        self, context: Context, model: Sequential, dataset: Dataset, hyperparameters: Hyperparameters
    ) -> None:
        self._context, self._dataset = context, dataset
        self._model = model.with_classes(len(dataset.classes))
        self._runtime, self._hyper = context.runtime, hyperparameters
        self._shape = dataset.image_shape
        self.parameters: tuple[Parameter, ...] = self._model.parameters(
            context, self._shape, hyperparameters.seed
        )
        self._train = _Source(context, dataset.train, dataset, "train")
        self._test = _Source(context, dataset.test, dataset, "test")
        self._losses = self._slots(self._train.count, np.float64)
        self._test_losses = self._slots(self._test.count, np.float64)
        self._test_correct = self._slots(self._test.count, np.int64)
        self._training = self._batches(self._train, self._record_training)
        self._testing = self._batches(self._test, self._record_testing)

    # ---- what users call ----

    @property
    def batches_per_epoch(self) -> int:
        """Number of mini-batches of one epoch, a shorter last one included."""
        return self._training.count + (self._training.last is not None)

    @property
    def epoch_graphs(self) -> list[tuple[TaskGraph, int]]:
        """The recorded mini-batches of one epoch of training, and how often each is submitted."""
        batches = self._training
        return [(graph, n) for graph, n in ((batches.full, batches.count), (batches.last, 1)) if graph]

    def run_epoch(
        self,
        epoch: int,
        on_batch: Callable[[BatchProgress], None] | None = None,
        max_batches: int | None = None,
    ) -> EpochResult:
        """Train one epoch, its images in an order drawn from the seed and the epoch's number.

        ``max_batches`` ends it sooner. Raises LossIsNotANumberError as soon as a mini-batch's loss is no number.
        """
        if max_batches is not None and max_batches < 1:
            raise ValueError(f"max_batches must be at least 1, got {max_batches}")
        generator = np.random.Generator(np.random.PCG64([self._hyper.seed, epoch]))
        self._train.order.write(generator.permutation(self._train.count))
        self._losses.write(np.zeros(self._losses.shape))
        self._runtime.plan(self.epoch_graphs)
        start_s = self._runtime.now_s()
        total = self.batches_per_epoch if max_batches is None else min(max_batches, self.batches_per_epoch)
        tasks = len(self._training.full or self._training.last or [])
        for batch in range(total):
            self._submit(self._training, batch)
            self._runtime.wait_submitted(tasks * BATCHES_AHEAD)
            # One more stays unreported: a mini-batch's loss may be recorded after the next one's forward tasks.
            done = batch - BATCHES_AHEAD
            if done > 0 and batch < self._training.count:
                self._report(epoch, done, total, start_s, on_batch)
        self._runtime.wait_all()
        end_s = self._runtime.now_s()
        loss = self._report(epoch, total, total, start_s, on_batch)
        return EpochResult(epoch, self._images(total), start_s, end_s, loss)

    def evaluate(self, max_batches: int | None = None) -> Evaluation:
        """Return loss and accuracy over the test split."""
        if max_batches is not None and max_batches < 1:
            raise ValueError(f"max_batches must be at least 1, got {max_batches}")
        start_s = self._runtime.now_s()
        count = self._testing.count + (self._testing.last is not None)
        total = count if max_batches is None else min(max_batches, count)
        tasks = len(self._testing.full or self._testing.last or [])
        for batch in range(total):
            self._submit(self._testing, batch)
            self._runtime.wait_submitted(tasks * BATCHES_AHEAD)
        self._runtime.wait_all()
        end_s = self._runtime.now_s()
        if self._runtime.simulated:
            return Evaluation(math.nan, math.nan, start_s, end_s)
        images = min(self._test.count, total * self._hyper.batch_size)
        loss = float(self._test_losses.numpy()[:total].sum()) / images
        return Evaluation(loss, float(self._test_correct.numpy()[:total].sum()) / images, start_s, end_s)

    def rehearse(self, repeats: int) -> None:
        """Run each recorded mini-batch a few times, on images in a random order, for the lengths of its tasks.

        The parameters change: rehearse with a trainer of its own.
        """
        for source in (self._train, self._test):
            source.order.write(np.random.Generator(np.random.PCG64(0)).permutation(source.count))
        for step in range(repeats):
            for batches in (self._training, self._testing):
                if batches.full is not None:
                    batches.full.submit(step % batches.count)
                if batches.last is not None:
                    batches.last.submit(0)
                self._runtime.wait_all()

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of every parameter by name, float32."""
        return {parameter.name: parameter.value.numpy() for parameter in self.parameters}

    def weights_sha256(self) -> str:
        """Return a digest of every parameter's name, shape and bits."""
        digest = hashlib.sha256()
        for name, value in sorted(self.weights().items()):
            digest.update(f"{name} {value.shape} ".encode() + value.tobytes())
        return digest.hexdigest()

    # ---- recording ----

    def _slots(self, images: int, dtype: Any) -> Tensor:
        return self._context.tensor(
            np.zeros(math.ceil(images / self._hyper.batch_size), dtype), name="by batch"
        )

    def _batches(self, source: _Source, record: Callable[[int, int], TaskGraph]) -> _Batches:
        size = self._hyper.batch_size
        count, rest = divmod(source.count, size)
        full = record(size, 0) if count else None
        return _Batches(full, count, record(rest, count) if rest else None, rest)

    def _network(self, batch: int, *, training: bool) -> Network:
        tile = min(self._hyper.tile, batch)
        return self._model.network(
            self._context, self.parameters, self._shape, batch, tile, training=training
        )

    def _record_training(self, batch: int, first_batch: int) -> TaskGraph:
        size, hyper, context = self._hyper.batch_size, self._hyper, self._context
        network = self._network(batch, training=True)
        with context.record() as graph:
            self._train.gather(context, network, first_batch * size, size)
            network.forward()
            network.loss_and_gradient()
            context.submit(ops.RECORD, self._losses, network.loss, index=Step(first_batch, 1))
            network.backward()
            network.update(hyper.learning_rate, hyper.momentum, hyper.weight_decay)
        return graph

    def _record_testing(self, batch: int, first_batch: int) -> TaskGraph:
        size, context = self._hyper.batch_size, self._context
        network = self._network(batch, training=False)
        with context.record() as graph:
            self._test.gather(context, network, first_batch * size, size)
            network.forward()
            network.measure_loss()
            network.count_correct()
            context.submit(ops.RECORD, self._test_losses, network.loss, index=Step(first_batch, 1))
            context.submit(ops.RECORD_COUNT, self._test_correct, network.correct, index=Step(first_batch, 1))
        return graph

    # ---- running ----

    def _submit(self, batches: _Batches, batch: int) -> None:
        if batch < batches.count:
            assert batches.full is not None
            batches.full.submit(batch)
        else:
            assert batches.last is not None
            batches.last.submit(0)

    def _images(self, batches: int) -> int:
        return min(self._train.count, batches * self._hyper.batch_size)

    def _report(
        self,
        epoch: int,
        done: int,
        total: int,
        start_s: float,
        on_batch: Callable[[BatchProgress], None] | None,
    ) -> float:
        """Check the losses of the mini-batches done so far, tell how far the epoch is, and return their mean loss."""
        images = self._images(done)
        if self._runtime.simulated:
            loss = math.nan
        else:
            values: Any = self._losses.tiles[0].handle.array
            wrong = np.flatnonzero(~np.isfinite(values[:done]))
            if wrong.size:
                self._runtime.cancel()
                raise LossIsNotANumberError(
                    f"the loss became {values[wrong[0]]} at mini-batch {wrong[0] + 1} of epoch {epoch}; "
                    f"try a learning_rate below {self._hyper.learning_rate}"
                )
            loss = float(values[:done].sum()) / images
        if on_batch:
            on_batch(BatchProgress(epoch, images, self._images(total), self._runtime.now_s() - start_s, loss))
        return loss
