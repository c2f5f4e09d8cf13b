"""Runs launch programs on the host: CUDA C compiled as C++ with `cuda_host.hpp`, matrix products by NumPy.

Operands stand between guards, so that a write outside is seen; scratch and shared memory start as NaN, so that a read
of what nothing wrote is seen. Every program runs twice, with a block's threads and a grid's blocks in ascending and in
descending order: the bits must be the same, or a barrier is missing or two threads write one place.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from dahl.starpu import launch
from dahl.starpu.cuda_source import functions, source_text
from dahl.starpu.kernel import cache_root

HEADER = Path(__file__).with_suffix(".hpp")
COMPILER = shutil.which("g++") or shutil.which("clang++")
FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-U_FORTIFY_SOURCE")
GUARD = 64
needs_compiler = pytest.mark.skipif(
    COMPILER is None, reason="CUDA C is compiled as C++, and here is no g++ or clang++"
)


@cache
def library(source):
    """A source's functions for the host, each behind `host_NAME`."""
    return ctypes.CDLL(built(source_text(source)))


def built(text):
    """The library of a source's text; kept on disk by a hash of all that is compiled."""
    wrappers = [
        f'extern "C" void host_{name}(void **a, const int *g, const int *b, int s, bool d) '
        f"{{ host::launch({name}, a, g, b, s, d); }}\n"
        f'extern "C" const char *types_{name}() {{ static auto t = host::types({name}); return t.c_str(); }}'
        for name in functions(text)
    ]
    # The structure of items is told apart by its name alone.
    items = "".join(
        f'template <> struct host::Code<Items<{kind}>> {{ static std::string name() {{ return "Items {dtype}"; }} }};\n'
        for kind, dtype in (("float", "float32"), ("double", "float64"), ("long long", "int64"))
        if "struct Items" in text
    )
    whole = "\n".join([HEADER.read_text(), text, items, *wrappers])
    folder = cache_root() / "cuda_host"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256((whole + str(FLAGS)).encode()).hexdigest()[:24]}.so"
    if not path.exists():
        written, partial = path.with_suffix(".cpp"), path.with_suffix(".partial")
        written.write_text(whole)
        subprocess.run([COMPILER, *FLAGS, "-o", partial, written], check=True)
        partial.replace(path)
    return path


class Guarded:
    """An array in the middle of a larger one whose ends must stay as they are."""

    def __init__(self, values):
        self._whole = np.full(
            values.size + 2 * GUARD, np.nan if values.dtype.kind == "f" else 113, values.dtype
        )
        self._before = self._whole.tobytes()
        self.array = self._whole[GUARD : GUARD + values.size].reshape(values.shape)
        self.array[...] = values

    def check(self, name):
        width = GUARD * self._whole.itemsize
        now = self._whole.tobytes()
        assert now[:width] == self._before[:width], f"{name} was written before its begin"
        assert now[-width:] == self._before[-width:], f"{name} was written after its end"


class HostGpu:
    """Executes one program on given operands (name -> array, or list of arrays) and scalars."""

    def __init__(self, operation, operands, scalars, descending=False):
        self._operation, self._scalars, self._descending = operation, scalars, descending
        self._dtypes = {operand.name: operand.dtype for operand in operation.kernel.operands}
        self._modes = {operand.name: operand.mode for operand in operation.kernel.operands}
        self.operands = {
            name: [Guarded(item) for item in value] if isinstance(value, list) else [Guarded(value)]
            for name, value in operands.items()
        }
        shapes = {
            name: tuple(item.shape for item in value) if isinstance(value, list) else value.shape
            for name, value in operands.items()
        }
        operation.check(shapes, scalars)
        self.program = operation.cuda.program(shapes, scalars)
        self._scratch = Guarded(np.full(self.program.scratch_floats, np.nan, np.float32))
        self._failure = Guarded(np.zeros(1, np.int32))

    def run(self):
        """Returns the number of the failure."""
        for command in self.program.commands:
            if isinstance(command, launch.Launch):
                self._launch(command)
            elif isinstance(command, launch.Gemm):
                self._multiply(command)
            else:
                memory = self._memory(command.target)
                memory.view(np.uint8)[: command.nbytes] = 0
        for name, arrays in self.operands.items():
            for array in arrays:
                array.check(name)
        self._scratch.check("scratch")
        return int(self._failure.array[0])

    def _memory(self, address):
        """What stands at an address and after it, 1-d."""
        if isinstance(address, launch.Scratch):
            return self._scratch.array[address.offset_floats :]
        return self.operands[address.operand][address.item].array.reshape(-1)[address.offset :]

    def _launch(self, command):
        functions = library(self._operation.cuda.source)
        name = getattr(functions, f"types_{command.function}")
        name.restype = ctypes.c_char_p
        expected = name().decode().split(",")[:-1]
        assert len(expected) == len(command.arguments), (command.function, expected)
        kept = [self._value(a, e) for a, e in zip(command.arguments, expected, strict=True)]
        pointers = (ctypes.c_void_p * len(kept))(*(value.ctypes.data for value in kept))
        three = ctypes.c_int * 3
        getattr(functions, f"host_{command.function}")(
            pointers, three(*command.grid), three(*command.block), command.shared_bytes, self._descending
        )

    def _value(self, argument, expected):
        """The argument's bytes; its kind has to be what the function's parameter is."""
        if isinstance(argument, launch.Buffer):
            dtype, mode = self._dtypes[argument.operand], self._modes[argument.operand]
            assert expected.split()[-1] == dtype, (argument, expected)
            assert expected.startswith("const ") or mode != "r", (
                f"{argument} is read only, passed as {expected}"
            )
            return np.array([self._memory(argument).ctypes.data], np.uint64)
        if isinstance(argument, launch.Scratch):
            return np.array([self._memory(argument).ctypes.data], np.uint64)
        if isinstance(argument, launch.Failure):
            assert expected == "int32"
            return np.array([self._failure.array.ctypes.data], np.uint64)
        if isinstance(argument, launch.Items):
            assert expected == f"Items {self._dtypes[argument.operand]}"
            assert 1 <= argument.count <= launch.ITEMS_PER_LAUNCH
            found = np.zeros(launch.ITEMS_PER_LAUNCH, np.uint64)
            for i in range(argument.count):
                found[i] = self.operands[argument.operand][argument.first + i].array.ctypes.data
            return found
        if isinstance(argument, launch.Scalar):
            kind = dict(self._operation.kernel.scalars)[argument.name]
            assert expected == f"Scalar {kind}", (argument, expected)
            return np.array([self._scalars[argument.name]], kind)
        assert expected == type(argument).__name__, (argument, expected)
        return np.array([argument.value], "int32" if expected == "Int32" else "float32")

    def _multiply(self, command):
        def matrices(address, rows, columns, distance, stride):
            memory = self._memory(address)
            assert memory.dtype == np.float32
            assert distance >= columns, command
            last = (command.batch - 1) * stride + (rows - 1) * distance + columns
            assert last <= memory.size, f"{command} reaches outside {address}"
            steps = (4 * stride, 4 * distance, 4)
            return np.lib.stride_tricks.as_strided(memory, (command.batch, rows, columns), steps)

        def turned(transpose, address, rows, columns, distance, stride):
            if not transpose:
                return matrices(address, rows, columns, distance, stride)
            return matrices(address, columns, rows, distance, stride).swapaxes(1, 2)

        a = turned(command.transpose_a, command.a, command.m, command.k, command.lda, command.stride_a)
        b = turned(command.transpose_b, command.b, command.k, command.n, command.ldb, command.stride_b)
        c = matrices(command.c, command.m, command.n, command.ldc, command.stride_c)
        product = np.float32(command.alpha) * (a @ b)
        c[...] = product + np.float32(command.beta) * c if command.beta else product


def run_on_host(operation, operands, scalars):
    """Outputs by name and the failure's number, after a run in each order of the threads gave the same bits."""
    found = []
    for descending in (False, True):
        gpu = HostGpu(operation, operands, scalars, descending)
        failure = gpu.run()
        outputs = {}
        for operand in operation.kernel.operands:
            arrays = [guarded.array.copy() for guarded in gpu.operands[operand.name]]
            if operand.mode != "r":
                outputs[operand.name] = arrays[0]
                continue
            given = operands[operand.name] if operand.repeated else [operands[operand.name]]
            for array, before in zip(arrays, given, strict=True):
                np.testing.assert_array_equal(array, before, err_msg=f"{operand.name} is only read")
        found.append((outputs, failure))
    (outputs, failure), (again, failure_again) = found
    assert failure == failure_again
    for name, array in outputs.items():
        assert array.tobytes() == again[name].tobytes(), f"{name} depends on the order of threads"
    return outputs, failure
