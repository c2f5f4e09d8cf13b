"""Training a model: recorded mini-batch graphs, epochs, evaluation, and a digest of the weights.

A mini-batch is cut into tiles; each tile writes gradients of its own and one task sums them in a fixed order. So the
weights after an epoch do not depend on the scheduler or on the number of workers, bit for bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dahl.context import Context
from dahl.datasets import Dataset
from dahl.layers import Sequential
from dahl.network import Parameter
from dahl.recording import Batches, LayerRecorder, Recorder, Source, Update
from dahl.recording_fused import fused_operations, fused_recorder
from dahl.starpu import TaskGraph
from dahl.tiling import TileSizes, Tiling, check_tile_sizes, tiling


class LossIsNotANumberError(ArithmeticError):
    """The loss became NaN or infinite: training diverged."""


@final
@dataclass(frozen=True)
class Hyperparameters:
    """What is trained how: a mini-batch of ``batch_size`` images in tiles of ``tile``, SGD with momentum."""

    batch_size: int = 64
    tile: TileSizes = 16
    """Images of a tile, or by worker class: `Tiling`."""
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    seed: int = 0
    fuse: bool = False
    """Whether layers that follow each other are one task: faster on CPUs, less to place."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        check_tile_sizes(self.tile, self.batch_size, fuse=self.fuse)
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
class Trainer:
    """Trains ``model`` on ``dataset``; parameters start from ``hyperparameters.seed``."""

    def __init__(
        self, context: Context, model: Sequential, dataset: Dataset, hyperparameters: Hyperparameters
    ) -> None:
        self._runtime, self._hyper = context.runtime, hyperparameters
        classes = [worker.worker_class for worker in context.runtime.workers]
        self._tiling = tiling(hyperparameters.tile, classes)
        self._recorder = _recorder(
            context, model.with_classes(len(dataset.classes)), dataset, hyperparameters, self._tiling
        )
        self._train = Source(context, dataset.train, dataset, "train")
        self._test = Source(context, dataset.test, dataset, "test")
        self._training = self._recorder.training(self._train)
        self._testing = self._recorder.testing(self._test)

    # ---- what users call ----

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The trained tensors; those of ``fuse`` are one vector."""
        return self._recorder.parameters

    @property
    def batches_per_epoch(self) -> int:
        """Number of mini-batches of one epoch, a shorter last one included."""
        return self._training.total

    @property
    def tasks_per_batch(self) -> int:
        """Tasks of a mini-batch of training."""
        return self._training.tasks

    @property
    def tiles(self) -> tuple[int, ...]:
        """Images of each tile of a full mini-batch."""
        return self._tiling.tiles(self._hyper.batch_size)

    @property
    def epoch_graphs(self) -> list[tuple[TaskGraph, int]]:
        """The recorded mini-batches of one epoch of training, and how often each is submitted."""
        return self._training.uses

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
        self._train.order.write(order_of_epoch(self._hyper.seed, epoch, self._train.count))
        self._recorder.clear_losses()
        self._runtime.plan(self.epoch_graphs)
        start_s = self._runtime.now_s()
        total = self.batches_per_epoch if max_batches is None else min(max_batches, self.batches_per_epoch)
        reported, self._loss = 0, 0.0

        def progress(submitted: int) -> None:
            nonlocal reported
            # One more stays unreported: a mini-batch's loss may be recorded after the next one's forward tasks.
            done = min(submitted, self._training.count) - self._recorder.batches_ahead - 1
            if done > reported:
                self._report(epoch, reported, done, total, start_s, on_batch)
                reported = done

        self._submit(self._training, total, progress)
        self._training.finish(total)
        self._runtime.wait_all()
        end_s = self._runtime.now_s()
        loss = self._report(epoch, reported, total, total, start_s, on_batch)
        return EpochResult(epoch, self._images(total), start_s, end_s, loss)

    def evaluate(self, max_batches: int | None = None) -> Evaluation:
        """Return loss and accuracy over the test split."""
        if max_batches is not None and max_batches < 1:
            raise ValueError(f"max_batches must be at least 1, got {max_batches}")
        start_s = self._runtime.now_s()
        total = self._testing.total if max_batches is None else min(max_batches, self._testing.total)
        self._submit(self._testing, total, lambda submitted: None)
        self._runtime.wait_all()
        end_s = self._runtime.now_s()
        if self._runtime.simulated:
            return Evaluation(math.nan, math.nan, start_s, end_s)
        images = min(self._test.count, total * self._hyper.batch_size)
        loss, correct = self._recorder.tested(total)
        return Evaluation(loss / images, correct / images, start_s, end_s)

    def batch_losses(self, batches: int) -> np.ndarray:
        """Return the mean loss of each of the last epoch's first mini-batches; 0 for one that was not trained."""
        images = np.minimum(
            self._hyper.batch_size, self._train.count - np.arange(batches) * self._hyper.batch_size
        )
        means: np.ndarray = self._recorder.losses(0, batches) / images
        return means

    def rehearse(self, repeats: int) -> None:
        """Run each recorded mini-batch a few times, on images in a random order, for the lengths of its tasks.

        The parameters change: rehearse with a trainer of its own.
        """
        for source in (self._train, self._test):
            source.order.write(np.random.Generator(np.random.PCG64(0)).permutation(source.count))
        for step in range(repeats):
            for batches in (self._training, self._testing):
                for graph, _ in batches.uses:
                    graph.submit(step % batches.count if graph in batches.full else 0)
                self._runtime.wait_all()

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of every parameter by name, float32."""
        return self._recorder.weights()

    def weights_sha256(self) -> str:
        """Return a digest of every parameter's name, shape and bits."""
        return weights_digest(self.weights())

    # ---- running ----

    def _submit(self, batches: Batches, total: int, progress: Callable[[int], None]) -> None:
        """Submit the first mini-batches, a window ahead of their end; ``progress`` gets how many were, now and then."""
        ahead = self._recorder.batches_ahead
        if self._recorder.is_fed:
            self._runtime.feed(*batches.order(total), at_most=batches.tasks * ahead, on_progress=progress)
            return
        for first in range(0, total, ahead // 2):
            until = min(first + ahead // 2, total)
            for batch in range(first, until):
                batches.submit(batch)
            self._runtime.wait_submitted(batches.tasks * ahead)
            progress(until)

    def _images(self, batches: int) -> int:
        return min(self._train.count, batches * self._hyper.batch_size)

    def _report(
        self,
        epoch: int,
        reported: int,
        done: int,
        total: int,
        start_s: float,
        on_batch: Callable[[BatchProgress], None] | None,
    ) -> float:
        """Check the losses since the last report, tell how far the epoch is, and return the mean loss so far."""
        images = self._images(done)
        if self._runtime.simulated:
            loss = math.nan
        else:
            values = self._recorder.losses(reported, done)
            wrong = np.flatnonzero(~np.isfinite(values))
            if wrong.size:
                self._runtime.cancel()
                raise LossIsNotANumberError(
                    f"the loss became {values[wrong[0]]} at mini-batch {reported + wrong[0] + 1} of epoch {epoch}; "
                    f"try a learning_rate below {self._hyper.learning_rate}"
                )
            self._loss += float(values.sum()) if done < total else 0.0
            loss = (self._recorder.losses(0, total).sum() if done == total else self._loss) / images
        if on_batch:
            on_batch(BatchProgress(epoch, images, self._images(total), self._runtime.now_s() - start_s, loss))
        return float(loss)


def order_of_epoch(seed: int, epoch: int, images: int) -> np.ndarray:
    """Return the order in which an epoch takes the images: a permutation drawn from the seed and the epoch's number."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(images)


def weights_digest(weights: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of every parameter's name, shape and bits."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.shape} ".encode() + value.tobytes())
    return digest.hexdigest()


def can_fuse(model: Sequential, image_shape: tuple[int, ...]) -> bool:
    """Whether layers of a model can be one task, for images (C, H, W)."""
    return fused_operations(model, image_shape) is not None


def _recorder(
    context: Context, model: Sequential, dataset: Dataset, hyper: Hyperparameters, tiling: Tiling
) -> Recorder:
    """One task for each layer, or fused."""
    update = Update(hyper.learning_rate, hyper.momentum, hyper.weight_decay)
    layout: dict[str, Any] = {
        "batch_size": hyper.batch_size,
        "tiling": tiling,
        "update": update,
        "seed": hyper.seed,
    }
    shape = dataset.image_shape
    if hyper.fuse:
        operations = fused_operations(model, shape)
        if operations is None:
            raise ValueError(
                f"fuse: {model.name} has no layers that can be one task; train it with fuse=false"
            )
        return fused_recorder(context, model, shape, operations, **layout)
    images = len(dataset.train.labels), len(dataset.test.labels)
    return LayerRecorder(context, model, shape, **layout, images=images)
