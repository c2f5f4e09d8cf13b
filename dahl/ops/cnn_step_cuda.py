"""Launch programs of `cnn_step.py`'s operations: a block takes a few images through the whole network."""

from __future__ import annotations

from dahl.ops.device import Value, blocks, count, launched, pointwise, source, sum_parts
from dahl.ops.operation import Scalars, Shapes, require
from dahl.ops.sum_and_step import update_device_floats, update_launches
from dahl.starpu.launch import (
    ALIGNMENT_FLOATS,
    SHARED_BYTES,
    Buffer,
    CudaKernel,
    Failure,
    Launch,
    Program,
    Scalar,
    Scratch,
)

_DATA = tuple(Buffer(name) for name in ("images", "labels", "order", "mean", "std", "w"))
_SMALL_TILE = 256  # up to so many images, blocks of 2 fill a GPU better than blocks of 8
_STATIC_BYTES = 2048  # at least what the kernels declare


class _Layout:
    """How a tile is cut into blocks, and where what they compute stands in scratch."""

    def __init__(self, shapes: Shapes, scalars: Scalars, begin: int = 0) -> None:
        channels, height, width = shapes["images"][1:]
        self.filters, self.classes = int(scalars["filters"]), int(scalars["classes"])
        self.images, self.weights = int(scalars["count"]), shapes["w"][0]
        self.group, self.threads = (2, 256) if self.images <= _SMALL_TILE else (8, 512)
        self.blocks = blocks(self.images, self.group)
        inputs = self.filters * ((height - 2) // 2) * ((width - 2) // 2)
        numbers = 2 * channels + self.group * self.classes
        values = self.group * (inputs + blocks(inputs + channels * height * width, 4))
        fits = 4 * (numbers + values) + _STATIC_BYTES <= SHARED_BYTES
        require(
            4 * numbers + _STATIC_BYTES <= SHARED_BYTES, f"cnn: {self.classes} classes are too many for a GPU"
        )
        self.shared_bytes = 4 * (numbers + values if fits else numbers)
        self.own_floats = 0 if fits else _aligned(values)
        pairs = self.filters * channels
        self.lanes = max(1, 1 << (max(1, self.threads // pairs).bit_length() - 1))
        self.sizes = shapes["images"][0], shapes["order"][0], channels, height, width
        self.by_image = begin  # two numbers of 64 bits
        self.partial = self.by_image + _aligned(4 * self.images)
        self.values = self.partial + _aligned(self.blocks * self.weights)
        self.end = self.values + self.blocks * self.own_floats
        count((self.end,))

    def launch(self, function: str, *outputs: Value, scale: tuple[Value, ...] = ()) -> Launch:
        """A launch of the kernel that takes images through the network."""
        network = self.filters, self.classes, self.images
        own = Scratch(self.values), self.own_floats, self.lanes
        arguments = *_DATA, *outputs, *own, *self.sizes, *network, Scalar("first"), *scale, Failure()
        name, grid, block = f"{function}_{self.group}", (self.blocks, 1, 1), (self.threads, 1, 1)
        return launched(name, grid, block, *arguments, shared_bytes=self.shared_bytes)

    def record(self, function: str, history: str, at: int, shapes: Shapes) -> Launch:
        """A launch that sums a number of each image over micro-tiles."""
        numbers = self.images, *shapes[history], Scalar("index"), Failure()
        return pointwise(function, blocks(self.images, 16), Scratch(at), Buffer(history), *numbers)


def _aligned(floats: int) -> int:
    return blocks(floats, ALIGNMENT_FLOATS) * ALIGNMENT_FLOATS


def _step(shapes: Shapes, scalars: Scalars) -> Program:
    layout = _Layout(shapes, scalars)
    return Program(_launches(layout, shapes), layout.end)


def _launches(layout: _Layout, shapes: Shapes) -> tuple[Launch, ...]:
    partial = Scratch(layout.partial)
    return (
        layout.launch("cnn_step", partial, Scratch(layout.by_image), scale=(Scalar("scale"),)),
        sum_parts(partial, Buffer("dw"), layout.blocks, layout.weights, layout.weights),
        layout.record("record_losses", "losses", layout.by_image, shapes),
    )


def _update_step(shapes: Shapes, scalars: Scalars) -> Program:
    layout = _Layout(shapes, scalars)
    update = update_launches(shapes, layout.end) if scalars["pending"] else ()
    return Program((*update, *_launches(layout, shapes)), layout.end + update_device_floats(shapes))


def _evaluation(shapes: Shapes, scalars: Scalars) -> Program:
    layout = _Layout(shapes, scalars)
    losses, right = layout.by_image, layout.by_image + 2 * layout.images
    launches = (
        layout.launch("cnn_evaluation", Scratch(losses), Scratch(right)),
        layout.record("record_losses", "losses", losses, shapes),
        layout.record("record_right", "correct", right, shapes),
    )
    return Program(launches, layout.end)


CNN_STEP_CUDA = CudaKernel(source("cnn_step"), _step)
CNN_UPDATE_STEP_CUDA = CudaKernel(source("cnn_step"), _update_step)
CNN_EVALUATION_CUDA = CudaKernel(source("cnn_step"), _evaluation)
