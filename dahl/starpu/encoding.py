"""Launch programs as C reads them: blocks of int64 (csrc/gpu_launch.c)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dahl.starpu.kernel import Kernel
from dahl.starpu.launch import (
    Argument,
    Buffer,
    Clear,
    Command,
    Failure,
    Float32,
    Gemm,
    Int32,
    Items,
    Launch,
    Program,
    Scalar,
    Scratch,
)

LAUNCH, GEMM, CLEAR = 1, 2, 3
BUFFER, CONSTANT, SCRATCH, ITEMS, INT32, FLOAT32, SCALAR, FAILURE = range(8)
FLOAT_BYTES = 4
MAX_ARGUMENTS = 48
"""Of one launch, in csrc/gpu_launch.c."""

Words = Sequence[int]


def _float_bits(value: float) -> int:
    return int(np.array(value, np.float32).view(np.uint32))


class _Encoder:
    """The positions that a kernel's operands and scalars have in a task."""

    def __init__(self, kernel: Kernel, number_of: Callable[[str], int]) -> None:
        self._kernel, self._number_of = kernel, number_of
        self._handles = {operand.name: at for at, operand in enumerate(kernel.handled)}
        constants = [operand.name for operand in kernel.operands if operand.constant]
        first = 1 + sum(operand.ndim for operand in kernel.operands) + len(kernel.scalars)
        self._constants = {name: first + at for at, name in enumerate(constants)}
        self._bytes = {operand.name: np.dtype(operand.dtype).itemsize for operand in kernel.operands}

    def command(self, command: Command) -> list[int]:
        """The words of one command."""
        if isinstance(command, Launch):
            if len(command.arguments) > MAX_ARGUMENTS:
                raise ValueError(
                    f"{command.function} has {len(command.arguments)} arguments, at most {MAX_ARGUMENTS}"
                )
            words = [word for argument in command.arguments for word in self.argument(argument)]
            number = self._number_of(command.function)
            shape = [*command.grid, *command.block, command.shared_bytes]
            return [LAUNCH, number, *shape, len(command.arguments), *words]
        if isinstance(command, Clear):
            return [CLEAR, *self.argument(command.target), command.nbytes]
        return self._gemm(command)

    def _gemm(self, gemm: Gemm) -> list[int]:
        return [
            GEMM,
            *(gemm.m, gemm.n, gemm.k),
            *(word for address in (gemm.a, gemm.b, gemm.c) for word in self.argument(address)),
            *(gemm.lda, gemm.ldb, gemm.ldc),
            *(int(gemm.transpose_a), int(gemm.transpose_b)),
            *(_float_bits(gemm.alpha), _float_bits(gemm.beta)),
            *(gemm.batch, gemm.stride_a, gemm.stride_b, gemm.stride_c),
        ]

    def argument(self, argument: Argument) -> Words:
        """The three words of one argument."""
        if isinstance(argument, Buffer):
            return self._buffer(argument)
        if isinstance(argument, Items):
            return ITEMS, self._handles[argument.operand] + argument.first, argument.count
        if isinstance(argument, Scratch):
            return SCRATCH, 0, argument.offset_floats * FLOAT_BYTES
        if isinstance(argument, Int32):
            return INT32, argument.value, 0
        if isinstance(argument, Float32):
            return FLOAT32, _float_bits(argument.value), 0
        if isinstance(argument, Scalar):
            return SCALAR, self._kernel.scalar_position(argument.name), 0
        assert isinstance(argument, Failure)
        return FAILURE, 0, 0

    def _buffer(self, buffer: Buffer) -> Words:
        offset_bytes = buffer.offset * self._bytes[buffer.operand]
        if buffer.operand in self._constants:
            return CONSTANT, self._constants[buffer.operand], offset_bytes
        return BUFFER, self._handles[buffer.operand] + buffer.item, offset_bytes


def encode(kernel: Kernel, program: Program, number_of: Callable[[str], int]) -> np.ndarray:
    """Return the block of a program of a kernel's tasks; ``number_of`` tells a CUDA function's number."""
    encoder = _Encoder(kernel, number_of)
    words = [word for command in program.commands for word in encoder.command(command)]
    return np.array([len(program.commands), *words], np.int64)
