"""Launch programs: what a task runs on an NVIDIA GPU, made once for each operation and its shapes.

A program is a list of kernel launches, matrix products and clearings that C submits to StarPU's stream, in this order
and with no Python in between. It is data: frozen and hashable, so that equal programs are encoded once.
What changes from task to task of a program are the addresses of the operands and the scalars that are read by name.

A CUDA function takes its arguments as this module says in `Argument`'s members. By convention the last one is
`Failure()`: a GPU cannot raise, so a kernel that finds what the CPU's would refuse writes a number of `FAILURES`
there, touches nothing that is out of bounds, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

ITEMS_PER_LAUNCH = 32
"""Addresses in the block that `Items` passes; `ITEMS` in common.cuh."""
SHARED_BYTES = 48 * 1024
"""Most shared memory of a block; more would have to be asked for function by function."""
ALIGNMENT_FLOATS = 64
"""Scratch begins at a multiple of 256 bytes, as cudaMalloc gives it."""
FAILURES = {
    1: "a label is outside the classes",
    2: "order names an image outside the data set",
    3: "std is 0",
    4: "first and the tile's length reach outside order",
    5: "index is outside the history",
    6: "a label is negative",
}
"""What a kernel can have found wrong, by the number that it writes."""


@final
@dataclass(frozen=True)
class Buffer:
    """Device address of an operand plus ``offset`` elements of it; ``item`` says which one of a repeated operand.

    A constant operand's address is that by which the GPU reads it: of mapped main memory, or of a copy on the GPU that
    is renewed whenever no task is left (the only time at which a constant changes).
    """

    operand: str
    item: int = 0
    offset: int = 0


@final
@dataclass(frozen=True)
class Items:
    """``count`` addresses of a repeated operand from item ``first`` on, passed by value.

    The argument is a structure of ITEMS_PER_LAUNCH pointers; those after the last one are null.
    """

    operand: str
    first: int
    count: int


@final
@dataclass(frozen=True)
class Scratch:
    """Address of the worker's own device memory plus an offset; its contents are undefined when a task starts."""

    offset_floats: int


@final
@dataclass(frozen=True)
class Int32:
    """An ``int``."""

    value: int


@final
@dataclass(frozen=True)
class Float32:
    """A ``float``."""

    value: float


@final
@dataclass(frozen=True)
class Scalar:
    """A scalar of the task, read from its argument block at each launch: a ``long long`` or a ``double``."""

    name: str


@final
@dataclass(frozen=True)
class Failure:
    """Address of an ``int`` of the worker's own that is 0 until a kernel finds something wrong (`FAILURES`)."""


Argument = Buffer | Items | Scratch | Int32 | Float32 | Scalar | Failure
Address = Buffer | Scratch


@final
@dataclass(frozen=True)
class Launch:
    """A launch of a CUDA function; ``shared_bytes`` is dynamic shared memory, at most SHARED_BYTES."""

    function: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[Argument, ...]
    shared_bytes: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.shared_bytes <= SHARED_BYTES:
            raise ValueError(
                f"{self.function}: {self.shared_bytes} bytes of shared memory, at most {SHARED_BYTES}"
            )
        threads = self.block[0] * self.block[1] * self.block[2]
        if not 1 <= threads <= 1024 or min(self.grid) < 1 or max(self.grid[1:]) > 65535:
            raise ValueError(
                f"{self.function}: a grid of {self.grid} blocks of {self.block} cannot be launched"
            )


@final
@dataclass(frozen=True)
class Gemm:
    """c = alpha op(a) op(b) + beta c by cuBLAS's SGEMM, in float32 without TF32; all matrices are row-major.

    ``op(a)`` is m x k and ``op(b)`` k x n; op transposes where ``transpose_a``, ``transpose_b`` say so.
    ``lda``, ``ldb`` and ``ldc`` are distances between rows as they are stored, in elements.
    With ``batch`` > 1 it is that many products, whose matrices are ``stride_a``, ``stride_b`` and ``stride_c`` apart.
    cuBLAS is column-major: it computes c^T = op(b)^T op(a)^T, so it gets b first and n before m.
    """

    m: int
    n: int
    k: int
    a: Address
    b: Address
    c: Address
    lda: int
    ldb: int
    ldc: int
    transpose_a: bool = False
    transpose_b: bool = False
    alpha: float = 1.0
    beta: float = 0.0
    batch: int = 1
    stride_a: int = 0
    stride_b: int = 0
    stride_c: int = 0


@final
@dataclass(frozen=True)
class Clear:
    """Set ``nbytes`` from an address on to 0."""

    target: Address
    nbytes: int


Command = Launch | Gemm | Clear


@final
@dataclass(frozen=True)
class Program:
    """The commands of a task in their order, and the device scratch that they need."""

    commands: tuple[Command, ...]
    scratch_floats: int = 0


@final
@dataclass(frozen=True)
class CudaKernel:
    """An operation on a GPU: a file of CUDA C (None: no function of its own), and the program for shapes and scalars.

    ``program`` takes shapes by operand (a repeated operand's is a tuple of shapes) and scalars by name.
    Two tasks that differ only in scalars that a recorded graph moves (``Step``) have the same program.
    """

    source: Path | None
    program: Callable[[Mapping[str, Any], Mapping[str, Any]], Program]
