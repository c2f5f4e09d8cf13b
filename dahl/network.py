"""A model laid out in memory for one batch size: its tensors, and the operations of a training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from dahl import ops
from dahl.ops.operation import Shape, ShapeError, show

if TYPE_CHECKING:
    from dahl.context import Context
    from dahl.tensor import Tensor


@final
@dataclass(frozen=True)
class Parameter:
    """A trained tensor with its momentum and the gradient of the last mini-batch, all of one shape."""

    name: str
    value: Tensor
    velocity: Tensor
    gradient: Tensor


@final
@dataclass(frozen=True)
class Value:
    """What flows from a layer to the next one."""

    data: Tensor
    gradient: Tensor | None
    """Of the loss to `data`; None where nothing before it is trained."""
    writable: bool
    """Whether the next layer may overwrite `data`: not so for the network's input."""


@final
@dataclass(frozen=True)
class Buffers:
    """Makes the tensors of a network: one row per image, cut into tiles."""

    ctx: Context
    tiles: tuple[int, ...]
    """Images of each tile."""
    training: bool

    @property
    def tile_count(self) -> int:
        """Number of tiles of a batch."""
        return len(self.tiles)

    @property
    def batch(self) -> int:
        """Images of a batch."""
        return sum(self.tiles)

    def tensor(self, shape: Shape, name: str, dtype: type = np.float32) -> Tensor:
        """A tensor for a batch of this shape of one image."""
        return self.ctx.tensor((self.batch, *shape), tile=self.tiles, dtype=dtype, name=name)

    def value(self, shape: Shape, name: str, trained: bool) -> Value:
        """The output of a layer; with a gradient where the layer or one before it is trained."""
        gradient = self.tensor(shape, f"{name}.gradient") if trained and self.training else None
        return Value(self.tensor(shape, name), gradient, writable=True)

    def partial_gradient(self, parameter: Parameter) -> Tensor:
        """Where each tile puts its share of a parameter's gradient; of one tile that is the gradient."""
        if self.tile_count == 1:
            return parameter.gradient
        shape = parameter.value.shape
        return self.ctx.per_tile(shape, self.tile_count, name=f"{parameter.name}.tiles")


class Stage(ABC):
    """A layer between two values: submits the layer's operations."""

    output: Value

    @abstractmethod
    def forward(self) -> None:
        """Compute the output from the input."""

    @abstractmethod
    def backward(self) -> None:
        """From the output's gradient compute the input's, where it has one, and those of the parameters."""


@dataclass(frozen=True)
class _Gradient:
    """A parameter and the share of each tile in its gradient."""

    parameter: Parameter
    tiles: Tensor

    def sum_tiles(self, ctx: Context) -> None:
        """Add the shares up in the order of the tiles."""
        total = self.parameter.gradient
        if self.tiles is not total:
            ctx.submit(ops.GRADIENT_SUM[len(total.shape)], total, self.tiles)


@final
class ConvStage(Stage):
    """Convolution and bias."""

    def __init__(
        self,
        buffers: Buffers,
        x: Value,
        shape: Shape,
        parameters: Sequence[Parameter],
        stride: int,
        padding: int,
    ) -> None:
        self._ctx, self._x = buffers.ctx, x
        self._weight, self._bias = (_Gradient(p, buffers.partial_gradient(p)) for p in parameters)
        self._window = {"stride": stride, "padding": padding}
        self.output = buffers.value(shape, "conv", trained=True)

    def forward(self) -> None:
        """Compute the output from the input."""
        y = self.output.data
        self._ctx.submit(ops.CONV2D, self._x.data, self._weight.parameter.value, y, **self._window)
        self._ctx.submit(ops.BIAS_4D, y, self._bias.parameter.value)

    def backward(self) -> None:
        """Compute the gradients of weights, bias and, where it has one, the input."""
        submit, dy, weight = self._ctx.submit, self.output.gradient, self._weight
        assert dy is not None
        if self._x.gradient is not None:
            submit(ops.CONV2D_BACKWARD_INPUT, dy, weight.parameter.value, self._x.gradient, **self._window)
        submit(ops.CONV2D_BACKWARD_WEIGHT, self._x.data, dy, weight.tiles, **self._window)
        submit(ops.BIAS_GRADIENT_4D, dy, self._bias.tiles)
        weight.sum_tiles(self._ctx)
        self._bias.sum_tiles(self._ctx)


@final
class LinearStage(Stage):
    """Matrix product and bias."""

    def __init__(self, buffers: Buffers, x: Value, shape: Shape, parameters: Sequence[Parameter]) -> None:
        self._ctx, self._x = buffers.ctx, x
        self._weight, self._bias = (_Gradient(p, buffers.partial_gradient(p)) for p in parameters)
        self.output = buffers.value(shape, "linear", trained=True)

    def forward(self) -> None:
        """Compute the output from the input."""
        y = self.output.data
        self._ctx.submit(ops.LINEAR, self._x.data, self._weight.parameter.value, y)
        self._ctx.submit(ops.BIAS_2D, y, self._bias.parameter.value)

    def backward(self) -> None:
        """Compute the gradients of weights, bias and, where it has one, the input."""
        submit, dy, weight = self._ctx.submit, self.output.gradient, self._weight
        assert dy is not None
        if self._x.gradient is not None:
            submit(ops.LINEAR_BACKWARD_INPUT, dy, weight.parameter.value, self._x.gradient)
        submit(ops.LINEAR_BACKWARD_WEIGHT, self._x.data, dy, weight.tiles)
        submit(ops.BIAS_GRADIENT_2D, dy, self._bias.tiles)
        weight.sum_tiles(self._ctx)
        self._bias.sum_tiles(self._ctx)


@final
class ReluStage(Stage):
    """ReLU, in place wherever the input is not the network's own: no layer needs its output unrectified."""

    def __init__(self, buffers: Buffers, x: Value, shape: Shape) -> None:
        self._ctx, self._x, self._ndim = buffers.ctx, x, len(shape) + 1
        self.output = x if x.writable else buffers.value(shape, "relu", trained=x.gradient is not None)

    def forward(self) -> None:
        """Compute the output from the input."""
        if self._x.writable:
            self._ctx.submit(ops.RELU_IN_PLACE[self._ndim], self._x.data)
        else:
            self._ctx.submit(ops.RELU[self._ndim], self._x.data, self.output.data)

    def backward(self) -> None:
        """Turn the output's gradient into the input's, which is the same tensor."""
        if self._x.gradient is not None:
            self._ctx.submit(ops.RELU_BACKWARD_IN_PLACE[self._ndim], self._x.data, self._x.gradient)


@final
class PoolStage(Stage):
    """Max-pooling."""

    def __init__(self, buffers: Buffers, x: Value, shape: Shape, size: int) -> None:
        self._ctx, self._x, self._window = buffers.ctx, x, {"size": size, "stride": size}
        self._argmax = buffers.tensor(shape, "argmax", np.uint8)
        self.output = buffers.value(shape, "max-pool", trained=x.gradient is not None)

    def forward(self) -> None:
        """Compute the output from the input."""
        self._ctx.submit(ops.MAX_POOL2D, self._x.data, self.output.data, self._argmax, **self._window)

    def backward(self) -> None:
        """Compute the input's gradient, where it has one."""
        dx, dy = self._x.gradient, self.output.gradient
        if dx is not None and dy is not None:
            self._ctx.submit(ops.MAX_POOL2D_BACKWARD, dy, self._argmax, dx, **self._window)


@final
class FlattenStage(Stage):
    """One row per image: another view of the same tensors, no task."""

    def __init__(self, x: Value) -> None:
        gradient = None if x.gradient is None else x.gradient.flatten()
        self.output = Value(x.data.flatten(), gradient, x.writable)

    def forward(self) -> None:
        """Nothing to do: the output is the input."""

    def backward(self) -> None:
        """Nothing to do: the gradients are the same memory."""


@final
class Network:
    """The tensors of a batch and the steps of training on it. Every method submits tasks and returns at once.

    Fill `input` (batch, C, H, W) and `labels` (batch,) first, by `write` or a gather task.
    """

    def __init__(
        self, buffers: Buffers, x: Value, stages: Sequence[Stage], parameters: Sequence[Parameter]
    ) -> None:
        self._ctx, self._stages, self._batch = buffers.ctx, tuple(stages), buffers.batch
        self._training = buffers.training
        self._output = stages[-1].output if stages else x
        self.parameters = tuple(parameters)
        self.input = x.data
        self.labels = buffers.tensor((), "labels", np.int32)
        self.logits = self._output.data
        self.loss = self._ctx.per_tile((1,), buffers.tile_count, dtype=np.float64, name="loss")
        """Sum of the images' losses, one number per tile."""
        self.correct = self._ctx.per_tile((1,), buffers.tile_count, dtype=np.int64, name="correct")
        """Images classified right, one count per tile."""
        if len(self.logits.shape) != 2:
            raise ShapeError(
                f"the model must end in one row per image, not {show(self.logits.shape[1:])}: add Linear"
            )
        if buffers.training and self._output.gradient is None:
            raise ShapeError("the model has nothing to train: add a Conv2d or Linear layer")

    def forward(self) -> None:
        """From `input` to `logits`."""
        for stage in self._stages:
            stage.forward()

    def loss_and_gradient(self) -> None:
        """From `logits` and `labels` to `loss` and the gradient of the batch's mean loss to the logits."""
        gradient = self._require_training()
        operands = (self.logits, self.labels, gradient, self.loss)
        self._ctx.submit(ops.SOFTMAX_CROSS_ENTROPY, *operands, scale=1.0 / self._batch)

    def backward(self) -> None:
        """From the logits' gradient to that of every parameter, summed over the tiles in their order."""
        self._require_training()
        for stage in reversed(self._stages):
            stage.backward()

    def update(self, learning_rate: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        """One step of gradient descent on every parameter."""
        for parameter in self.parameters:
            self._ctx.submit(
                ops.SGD[len(parameter.value.shape)],
                parameter.value,
                parameter.velocity,
                parameter.gradient,
                learning_rate=learning_rate,
                momentum=momentum,
                weight_decay=weight_decay,
            )

    def measure_loss(self) -> None:
        """From `logits` and `labels` to `loss`, without a gradient."""
        self._ctx.submit(ops.CROSS_ENTROPY, self.logits, self.labels, self.loss)

    def count_correct(self) -> None:
        """From `logits` and `labels` to `correct`."""
        self._ctx.submit(ops.ACCURACY, self.logits, self.labels, self.correct)

    def _require_training(self) -> Tensor:
        if not self._training or self._output.gradient is None:
            raise RuntimeError("this network was made with training=False and has no gradients")
        return self._output.gradient
