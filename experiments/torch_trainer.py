"""A model of `dahl.layers` in PyTorch: the same layers, initial weights, order of images and updates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from torch import nn

from dahl.datasets import Dataset, Split
from dahl.layers import Conv2d, Flatten, Layer, Linear, MaxPool2d, ReLU, Sequential
from dahl.training import (
    BatchProgress,
    EpochResult,
    Evaluation,
    Hyperparameters,
    LossIsNotANumberError,
    order_of_epoch,
    weights_digest,
)

_REPORT_BATCHES = 8
"""Mini-batches between two reports of progress: StarPU's are as rare, since it runs ahead of them."""


@final
@dataclass(frozen=True, kw_only=True)
class TorchOptions:
    """How PyTorch computes; what it computes is the same."""

    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    compile: bool = False
    normalise: Literal["each_batch", "once"] = "each_batch"


@final
class TorchTensor:
    """A parameter's values."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def numpy(self) -> np.ndarray:
        """A copy, in the order of rows."""
        return np.array(self._tensor.detach().numpy(), order="C")

    def write(self, values: np.ndarray) -> None:
        """Set the values."""
        with torch.no_grad():
            self._tensor.copy_(torch.from_numpy(values))


@final
@dataclass(frozen=True)
class TorchParameter:
    """A trained tensor."""

    name: str
    value: TorchTensor


def network_of(model: Sequential, image_shape: tuple[int, ...], seed: int) -> nn.Sequential:
    """The same layers with the same initial weights. Raises ValueError for a layer that PyTorch has no twin of."""
    modules, shape = [], tuple(image_shape)
    for layer in model.layers:
        modules.append(_module(layer, shape))
        shape = layer.output_shape(shape)
    network = nn.Sequential(*modules)
    start = model.initial_values(image_shape, seed).values()
    with torch.no_grad():
        for parameter, values in zip(network.parameters(), start, strict=True):
            parameter.copy_(torch.from_numpy(values))
    return network


def _module(layer: Layer, shape: tuple[int, ...]) -> nn.Module:
    match layer:
        case Conv2d():
            return nn.Conv2d(shape[0], layer.filters, layer.kernel_size, layer.stride, layer.padding)
        case Linear():
            return nn.Linear(shape[0], layer.units)
        case ReLU():
            return nn.ReLU()
        case MaxPool2d():
            return nn.MaxPool2d(layer.size)
        case Flatten():
            return nn.Flatten()
    raise ValueError(f"PyTorch's twin knows no {layer.label}: add it to experiments/torch_trainer.py")


@final
class _Images:
    """A split as PyTorch takes it: images by number, normalised."""

    def __init__(self, split: Split, dataset: Dataset, options: TorchOptions) -> None:
        # In float64 and rounded once, as the gather kernel's factor and offset are.
        mean, std = (
            np.asarray(values, np.float32).astype(np.float64) for values in (dataset.mean, dataset.std)
        )
        self._factor, self._offset = (
            torch.from_numpy(values.astype(np.float32)[:, None, None])
            for values in (1.0 / (255.0 * std), -mean / std)
        )
        channels_last = options.memory_format == "channels_last"
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        # A copy: the data set's arrays may be read-only.
        images = torch.from_numpy(np.array(split.images))
        self._ready = options.normalise == "once"
        self._images = self._normalised(images) if self._ready else images
        self._labels = torch.from_numpy(split.labels.astype(np.int64))
        self.count = len(split.labels)

    def take(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of these numbers."""
        images = self._images.index_select(0, chosen)
        return images if self._ready else self._normalised(images), self._labels.index_select(0, chosen)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        floats = images.to(torch.float32, memory_format=self._format)
        return floats.mul_(self._factor).add_(self._offset)


@final
class TorchTrainer:
    """What `dahl.training.Trainer` does, in PyTorch, on the threads that `torch.set_num_threads` gave it."""

    def __init__(
        self,
        model: Sequential,
        dataset: Dataset,
        hyperparameters: Hyperparameters,
        options: TorchOptions | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        options = options or TorchOptions()
        self._hyper, self._now_s = hyperparameters, now_s
        own = model.with_classes(len(dataset.classes))
        self._names = tuple(own.initial_values(dataset.image_shape, hyperparameters.seed))
        self._network = network_of(own, dataset.image_shape, hyperparameters.seed)
        if options.memory_format == "channels_last":
            self._network.to(memory_format=torch.channels_last)
        self._train = _Images(dataset.train, dataset, options)
        self._test = _Images(dataset.test, dataset, options)
        self._optimiser = torch.optim.SGD(
            self._network.parameters(),
            lr=hyperparameters.learning_rate,
            momentum=hyperparameters.momentum,
            weight_decay=hyperparameters.weight_decay,
        )
        self._loss: Callable[..., torch.Tensor] = self._mean_loss
        self._tested: Callable[..., tuple[torch.Tensor, torch.Tensor]] = self._sums
        if options.compile:
            self._loss = torch.compile(self._mean_loss, dynamic=False)
            self._tested = torch.compile(self._sums, dynamic=False)
        self.batch_losses: list[float] = []
        """Mean loss of each mini-batch of the last epoch."""

    @property
    def parameters(self) -> tuple[TorchParameter, ...]:
        """The trained tensors, by the names that `Sequential.initial_values` gives them."""
        return tuple(
            TorchParameter(name, TorchTensor(tensor))
            for name, tensor in zip(self._names, self._network.parameters(), strict=True)
        )

    @property
    def batches_per_epoch(self) -> int:
        """Number of mini-batches of one epoch, a shorter last one included."""
        return math.ceil(self._train.count / self._hyper.batch_size)

    def warm_up(self) -> None:
        """Run one mini-batch of each size, which compiles what is compiled; no weight changes."""
        for size in self._sizes(self._train.count):
            images, labels = self._train.take(torch.arange(size))
            self._loss(images, labels).backward()
        self._optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for size in self._sizes(self._test.count):
                self._tested(*self._test.take(torch.arange(size)))

    def run_epoch(
        self,
        epoch: int,
        on_batch: Callable[[BatchProgress], None] | None = None,
        max_batches: int | None = None,
    ) -> EpochResult:
        """Train one epoch, its images in the order that StarPU's trainer takes them.

        ``max_batches`` ends it sooner. Raises LossIsNotANumberError as soon as a mini-batch's loss is no number.
        """
        size, count = self._hyper.batch_size, self._train.count
        order = torch.from_numpy(order_of_epoch(self._hyper.seed, epoch, count))
        total = self.batches_per_epoch if max_batches is None else min(max_batches, self.batches_per_epoch)
        self.batch_losses = []
        loss_sum, images = 0.0, 0
        start_s = self._now_s()
        for batch in range(total):
            chosen = order[batch * size : (batch + 1) * size]
            loss = self._step(chosen)
            if not math.isfinite(loss):
                raise LossIsNotANumberError(
                    f"the loss became {loss} at mini-batch {batch + 1} of epoch {epoch}; "
                    f"try a learning_rate below {self._hyper.learning_rate}"
                )
            self.batch_losses.append(loss)
            loss_sum += loss * len(chosen)
            images += len(chosen)
            if on_batch and (batch % _REPORT_BATCHES == _REPORT_BATCHES - 1 or batch == total - 1):
                images_total = min(count, total * size)
                seconds = self._now_s() - start_s
                on_batch(BatchProgress(epoch, images, images_total, seconds, loss_sum / images))
        return EpochResult(epoch, images, start_s, self._now_s(), loss_sum / images)

    def evaluate(self) -> Evaluation:
        """Return loss and accuracy over the test split."""
        start_s = self._now_s()
        loss, correct, count = 0.0, 0, self._test.count
        with torch.no_grad():
            for first in range(0, count, self._hyper.batch_size):
                chosen = torch.arange(first, min(first + self._hyper.batch_size, count))
                own_loss, own_correct = self._tested(*self._test.take(chosen))
                loss += float(own_loss)
                correct += int(own_correct)
        return Evaluation(loss / count, correct / count, start_s, self._now_s())

    def weights(self) -> Mapping[str, np.ndarray]:
        """Return a copy of every parameter by name, float32."""
        return {parameter.name: parameter.value.numpy() for parameter in self.parameters}

    def weights_sha256(self) -> str:
        """Return a digest of every parameter's name, shape and bits."""
        return weights_digest(self.weights())

    def _step(self, chosen: torch.Tensor) -> float:
        self._optimiser.zero_grad(set_to_none=True)
        loss = self._loss(*self._train.take(chosen))
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())

    def _mean_loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self._network(images), labels)

    def _sums(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits: Any = self._network(images)
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        return loss, (logits.argmax(1) == labels).sum()

    def _sizes(self, count: int) -> set[int]:
        """The sizes of a pass's mini-batches."""
        whole, rest = divmod(count, self._hyper.batch_size)
        return {size for size in (self._hyper.batch_size if whole else 0, rest) if size}
