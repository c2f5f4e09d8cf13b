"""Launch programs of `lenet_step.py`'s operations: a launch for each layer, and cuBLAS for the wide linear one."""

from __future__ import annotations

import itertools
from typing import final

from dahl.ops.device import Value, blocks, count, launched, pointwise, source, sum_parts
from dahl.ops.micro_tiles import MICRO_TILE, micro_tiles
from dahl.ops.operation import Scalars, Shapes, require
from dahl.ops.sum_and_step import update_device_floats, update_launches
from dahl.starpu.launch import (
    ALIGNMENT_FLOATS,
    SHARED_BYTES,
    Buffer,
    Command,
    CudaKernel,
    Failure,
    Gemm,
    Launch,
    Program,
    Scalar,
    Scratch,
)

_DATA = tuple(Buffer(name) for name in ("images", "labels", "order", "mean", "std"))
_PARTS = 256  # shares of the images in the second convolution's gradients: what an H100 runs at once, 2 to each of 132
_STATIC_BYTES = 12 * 1024  # at least what the kernels with dynamic shared memory declare


@final
class _Lenet:
    """Sizes of a task, and where its values stand in scratch."""

    def __init__(self, shapes: Shapes, scalars: Scalars) -> None:
        self.shapes = shapes
        self.channels, self.height, self.width = shapes["images"][1:]
        names = "count", "first_filters", "second_filters", "units", "classes"
        self.count, self.first, self.second, self.units, self.classes = (int(scalars[name]) for name in names)
        self.rows, self.columns = (self.height - 2) // 2, (self.width - 2) // 2
        self.down, self.across = (self.rows - 2) // 2, (self.columns - 2) // 2
        self.pixels, self.windows = self.rows * self.columns, self.down * self.across
        self.inputs = self.windows * self.second
        self.filters_size = 9 * self.first * self.second
        # Where each parameter begins: weight and bias of each layer.
        convolutions = 9 * self.channels * self.first, self.first, self.filters_size, self.second
        linear = self.units * self.inputs, self.units, self.classes * self.units
        ends = itertools.accumulate((*convolutions, *linear), initial=0)
        self.w1, self.b1, self.w2, self.b2, self.w3, self.b3, self.w4, self.b4 = ends
        self.share = blocks(self.count, _PARTS)
        self.parts = blocks(self.count, self.share)
        self.head_floats = self.units + self.classes * self.units + self.classes
        self.head_bytes = 4 * MICRO_TILE * (self.units + 1 + self.classes)
        require(
            self.head_bytes + _STATIC_BYTES <= SHARED_BYTES,
            f"lenet: {self.units} units and {self.classes} classes are too many for a GPU",
        )
        gradient_bytes = 4 * 32 * self.pixels
        self.in_scratch = gradient_bytes + _STATIC_BYTES > SHARED_BYTES
        self.gradient_bytes = 0 if self.in_scratch else gradient_bytes
        self._lay_out()

    def _lay_out(self) -> None:
        n, channel_blocks = self.count, blocks(self.first, 32)
        sizes = {
            "x": n * self.channels * self.height * self.width,
            "labels": n,
            "by_image": 4 * n,  # two numbers of 64 bits
            "taps": self.filters_size,
            "packed": self.filters_size,
            "h1": n * self.pixels * self.first,
            "places1": blocks(n * self.pixels * self.first, 4),
            "h2": n * self.inputs,
            "places2": blocks(n * self.inputs, 4),
            "z": n * self.units,
            "dh2": n * self.inputs,
            "head": micro_tiles(n) * self.head_floats,
            "second": self.parts * (self.filters_size + self.second),
            "first": n * self.first * (9 * self.channels + 1),
            "dh1": n * channel_blocks * 32 * self.pixels if self.in_scratch else 0,
        }
        at, self._at = 0, {}
        for name, size in sizes.items():
            self._at[name] = at
            at += blocks(size, ALIGNMENT_FLOATS) * ALIGNMENT_FLOATS
        self.end = at
        count((at,))

    def at(self, name: str, offset: int = 0) -> Scratch:
        """Where a value stands."""
        return Scratch(self._at[name] + offset)

    def forward(self) -> list[Command]:
        """From the images to the units, without bias and ReLU."""
        images, channels, height, width = self.shapes["images"]
        plane, entries = height * width, self.shapes["order"][0]
        numbers = images, entries, channels, plane, self.count, Scalar("first"), Failure()
        w = Buffer("w", offset=self.w2)
        pack = w, self.at("taps"), self.at("packed"), self.second, self.first
        parameters = Buffer("w", offset=self.w1), Buffer("w", offset=self.b1)
        first = self.at("x"), *parameters, self.at("h1"), self.at("places1")
        second = (
            self.at("h1"),
            self.at("taps"),
            Buffer("w", offset=self.b2),
            self.at("h2"),
            self.at("places2"),
        )
        sizes = self.count, self.first, self.rows, self.columns, self.second
        warps = (32, 8, 1)
        gather = (*_DATA, self.at("x"), self.at("labels"), *numbers)
        image_sizes = channels, height, width, self.first
        over_images = self.count, blocks(self.first, 32), 1
        over_windows = (blocks(self.count * self.windows, 32), blocks(self.second, 64), 1)
        matrices = self.at("h2"), Buffer("w", offset=self.w3), self.at("z")
        product = (self.count, self.units, self.inputs, *matrices, self.inputs, self.inputs, self.units)
        return [
            launched("gather", (self.count, 1, 1), (256, 1, 1), *gather),
            pointwise("pack_filters", self.filters_size, *pack),
            launched("first_convolution", over_images, warps, *first, *image_sizes),
            launched("second_convolution", over_windows, warps, *second, *sizes),
            Gemm(*product, transpose_b=True),
        ]

    def head(self, function: str, *outputs: Scratch, scale: tuple[Scalar, ...] = ()) -> Launch:
        """The last layer, a block for each micro-tile."""
        parameters = [Buffer("w", offset=at) for at in (self.b3, self.w4, self.b4)]
        operands: list[Value] = [self.at("z"), *parameters, self.at("labels"), *outputs]
        sizes = self.count, self.units, self.classes
        grid, block = (micro_tiles(self.count), 1, 1), (256, 1, 1)
        return launched(
            function, grid, block, *operands, *sizes, *scale, Failure(), shared_bytes=self.head_bytes
        )

    def backward(self) -> list[Command]:
        """From the units' gradients to those of all parameters."""
        n, units, inputs = self.count, self.units, self.inputs
        dz, dh2, h2 = self.at("z"), self.at("dh2"), self.at("h2")
        w3, dw3 = Buffer("w", offset=self.w3), Buffer("dw", offset=self.w3)
        filters = self.at("h1"), dh2, self.at("places2"), self.at("second")
        sizes = n, self.share, self.first, self.rows, self.columns, self.second
        grid = self.parts, blocks(self.second, 64), blocks(self.first, 32)
        head, second = self.head_floats, self.filters_size + self.second
        first = self.first * (9 * self.channels + 1)
        return [
            Gemm(units, inputs, n, dz, h2, dw3, units, inputs, inputs, transpose_a=True),
            Gemm(n, inputs, units, dz, w3, dh2, units, inputs, inputs),
            launched("filter_gradient", grid, (32, 8, 1), *filters, *sizes),
            self._image_gradient(),
            sum_parts(self.at("head"), Buffer("dw", offset=self.b3), micro_tiles(n), head, head),
            sum_parts(self.at("second"), Buffer("dw", offset=self.w2), self.parts, second, second),
            sum_parts(self.at("first"), Buffer("dw", offset=self.w1), n, first, first),
        ]

    def _image_gradient(self) -> Launch:
        windows = max(3, blocks(self.across, blocks(self.across, 6)))  # of a thread: 3 to 6
        warps = min(8, blocks(self.down, 2))
        values = self.at("x"), self.at("dh2"), self.at("places2"), self.at("places1"), self.at("packed")
        where = self.at("dh1"), int(self.in_scratch), self.at("first")
        sizes = self.channels, self.height, self.width, self.first, self.second
        grid = self.count, blocks(self.first, 32), 1
        name, block, arguments = f"image_gradient_{windows}", (32, warps, 1), (*values, *where, *sizes)
        return launched(name, grid, block, *arguments, shared_bytes=self.gradient_bytes)

    def record(self, function: str, history: str, offset: int = 0) -> Launch:
        """A number of each image summed over micro-tiles."""
        numbers = self.count, *self.shapes[history], Scalar("index"), Failure()
        values = self.at("by_image", offset), Buffer(history)
        return pointwise(function, micro_tiles(self.count), *values, *numbers)


def _launches(task: _Lenet) -> tuple[Command, ...]:
    outputs = task.at("head"), task.at("by_image")
    head = task.head("head_step", *outputs, scale=(Scalar("scale"),))
    return (*task.forward(), head, *task.backward(), task.record("record_losses", "losses"))


def _step(shapes: Shapes, scalars: Scalars) -> Program:
    task = _Lenet(shapes, scalars)
    return Program(_launches(task), task.end)


def _update_step(shapes: Shapes, scalars: Scalars) -> Program:
    task = _Lenet(shapes, scalars)
    update = update_launches(shapes, task.end) if scalars["pending"] else ()
    return Program((*update, *_launches(task)), task.end + update_device_floats(shapes))


def _evaluation(shapes: Shapes, scalars: Scalars) -> Program:
    task = _Lenet(shapes, scalars)
    right = 2 * task.count
    head = task.head("head_evaluation", task.at("by_image"), task.at("by_image", right))
    recorded = task.record("record_losses", "losses"), task.record("record_right", "correct", right)
    return Program((*task.forward(), head, *recorded), task.end)


LENET_STEP_CUDA = CudaKernel(source("lenet_step"), _step)
LENET_UPDATE_STEP_CUDA = CudaKernel(source("lenet_step"), _update_step)
LENET_EVALUATION_CUDA = CudaKernel(source("lenet_step"), _evaluation)
