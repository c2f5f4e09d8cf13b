"""An operation: a kernel with its shapes, its cost and its NumPy reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dahl.starpu.kernel import Kernel, Operand
from dahl.starpu.launch import CudaKernel

Shape = tuple[int, ...]
Shapes = Mapping[str, Any]
"""Operand name -> shape of its tile. A repeated operand has the tuple of its items' shapes."""
Scalars = Mapping[str, Any]
"""Scalar name -> value."""
Arrays = Mapping[str, Any]
"""Operand name -> array. A repeated operand has the sequence of its items."""
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
LongArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]
DoubleArray = npt.NDArray[np.float64]

FLOAT_BYTES = 4


class ShapeError(ValueError):
    """Shapes that do not fit together; the message names them."""


@dataclass(frozen=True)
class Cost:
    """The work of one task: arithmetic, and the memory traffic that no implementation can avoid."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Operation:
    """What a task computes: the compiled kernel, and what is known about it without running it."""

    kernel: Kernel
    check: Callable[[Shapes, Scalars], None]
    """Raises ShapeError where the shapes of one task's tiles, or the scalars, do not fit."""
    cost: Callable[[Shapes, Scalars], Cost]
    reference: Callable[[Arrays, Scalars], dict[str, npt.NDArray[Any]]]
    """NumPy in float64: from the r and rw operands to the w and rw operands."""
    scratch_floats: Callable[[Shapes, Scalars], int] | None = None
    """Length of the scratch array that the kernel needs, in float32; None where it needs none."""
    kind: Literal["conv", "gemm", "memory"] = "memory"
    """The kind of kernel that a platform's rates are given for."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Scalars that may be left out, and their values."""
    arches: tuple[str, ...] = ("cpu", "cuda")
    """The workers that a task may be placed on; the GPUs of a simulated platform need no kernel."""
    cuda: CudaKernel | None = None
    """What a task runs on a GPU; None where it cannot run on one."""

    @property
    def name(self) -> str:
        """The kernel's name, by which traces and performance models know it."""
        return self.kernel.name


def elements(shape: Shape) -> int:
    """Number of elements of an array of this shape."""
    return math.prod(shape)


def require(condition: bool, message: str) -> None:
    """Raise ShapeError with the message where the condition does not hold."""
    if not condition:
        raise ShapeError(message)


def require_shape(operation: str, operand: str, found: Shape, expected: Shape, because: str) -> None:
    """Raise ShapeError where an operand does not have the shape that the other operands call for."""
    if tuple(found) != tuple(expected):
        raise ShapeError(f"{operation}: {operand} is {show(found)} where {because} needs {show(expected)}")


def show(shape: Shape) -> str:
    """A shape as people write it: 16x4x26x26."""
    return "x".join(str(size) for size in shape) if shape else "()"


def floats(name: str, mode: Literal["r", "w", "rw"], ndim: int) -> Operand:
    """A float32 operand."""
    return Operand(name, mode, ndim)
