"""A context that runs each operation's compiled kernel at once, tile by tile, on NumPy arrays.

It has the part of dahl.context.Context that layers use,
and checks what a compiled wrapper takes for granted: type, dimensions and contiguity of every buffer.
Buffers start out as NaN (or a recognisable integer), so that a kernel that reads what nothing wrote is seen.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numba import config, njit

from dahl import ops
from dahl.starpu.kernel import kernels_folder

_POISON = {"f": np.nan, "i": -77, "u": 201}


@cache
def compiled(function):
    """The function as StarPU's wrapper compiles it, kept on disk for as long as no source beside it changes."""
    kept = not hasattr(function, "py_func") and "<locals>" not in function.__qualname__
    before = config.CACHE_DIR
    config.CACHE_DIR = str(kernels_folder(Path(ops.__file__).parent) / "functions")
    try:
        return njit(function, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy", cache=kept)
    finally:
        config.CACHE_DIR = before


def poison(shape, dtype="float32"):
    """An array of values that no kernel may read."""
    return np.full(shape, _POISON[np.dtype(dtype).kind], dtype)


def execute(operation, arrays, **scalars):
    """Run one task: `arrays` in operand order, the repeated operand as a list."""
    operands = operation.kernel.operands
    assert len(arrays) == len(operands), f"{operation.name} takes {[operand.name for operand in operands]}"
    values = {**operation.defaults, **scalars}
    assert set(values) == {name for name, _ in operation.kernel.scalars}
    shapes = {}
    for operand, array in zip(operands, arrays, strict=True):
        for item in array if operand.repeated else [array]:
            assert (item.dtype, item.ndim) == (np.dtype(operand.dtype), operand.ndim), operand
            assert item.flags.c_contiguous, operand
        shapes[operand.name] = tuple(a.shape for a in array) if operand.repeated else array.shape
    operation.check(shapes, values)
    tail = [(int if kind == "int64" else float)(values[name]) for name, kind in operation.kernel.scalars]
    if operation.kernel.scratch:
        tail.append(poison(operation.scratch_floats(shapes, values)))
    if operation.kernel.load:
        operation.kernel.load()
    function = compiled(operation.kernel.function)
    if operands[-1].repeated:
        for index, item in enumerate(arrays[-1]):
            function(*arrays[:-1], item, *tail, index, len(arrays[-1]))
    else:
        function(*arrays, *tail)


class DirectTensor:
    """An array for each tile."""

    def __init__(self, tiles, name=""):
        self.tiles = tiles
        self.name = name

    @property
    def tile_shapes(self):
        return tuple(tile.shape for tile in self.tiles)

    @property
    def tile_count(self):
        return len(self.tiles)

    @property
    def shape(self):
        return (sum(tile.shape[0] for tile in self.tiles), *self.tiles[0].shape[1:])

    def flatten(self):
        return DirectTensor([tile.reshape(tile.shape[0], -1) for tile in self.tiles], self.name)

    def numpy(self):
        return np.concatenate(self.tiles)

    def write(self, array):
        first = 0
        for tile in self.tiles:
            tile[...] = array[first : first + tile.shape[0]]
            first += tile.shape[0]
        assert first == len(array)


class DirectContext:
    """Executes at once what is submitted, and remembers the names."""

    def __init__(self):
        self.submitted = []

    def tensor(self, values, *, tile=None, dtype=np.float32, name=""):
        array = values.copy() if isinstance(values, np.ndarray) else poison(values, dtype)
        pieces = np.split(array, np.cumsum(tile)[:-1]) if tile else [array]
        return DirectTensor([np.ascontiguousarray(piece) for piece in pieces], name)

    def per_tile(self, shape, count, *, dtype=np.float32, name=""):
        return DirectTensor([poison(shape, dtype) for _ in range(count)], name)

    def submit(self, operation, *tensors, **scalars):
        self.submitted.append(operation.name)
        operands = operation.kernel.operands
        single = [t for t, operand in zip(tensors, operands, strict=True) if not operand.repeated]
        count = max(tensor.tile_count for tensor in single)
        assert all(tensor.tile_count in (1, count) for tensor in single), [t.tile_count for t in single]
        for i in range(count):
            arrays = [tensor.tiles[i if tensor.tile_count > 1 else 0] for tensor in single]
            if operands[-1].repeated:
                arrays.append(tensors[-1].tiles)
            execute(operation, arrays, **scalars)
