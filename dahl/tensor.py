"""Tensors: arrays cut into tiles along the batch, each tile with a StarPU data handle of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dahl.starpu import DataHandle, Runtime

Shape = tuple[int, ...]


class TensorShapeError(ValueError):
    """A shape or a tile size that a tensor cannot have."""


@final
@dataclass(frozen=True)
class Tile:
    """One piece of a tensor: the shape that kernels see, and its handle."""

    shape: Shape
    handle: DataHandle


@final
class Tensor:
    """An array in StarPU's care, made by ``Context.tensor`` and ``Context.per_tile``.

    Its values are read with ``numpy()``, which waits for the tasks that write it.
    """

    __slots__ = ("dtype", "name", "shape", "tiles")

    def __init__(self, shape: Shape, tiles: tuple[Tile, ...], dtype: np.dtype[Any], name: str) -> None:
        self.shape, self.tiles, self.dtype, self.name = shape, tiles, dtype, name

    def __repr__(self) -> str:
        return f"<Tensor {self.name} {self.shape} {self.dtype} in {self.tile_count} tiles>"

    @property
    def tile_count(self) -> int:
        """Number of tiles."""
        return len(self.tiles)

    @property
    def tile_shapes(self) -> tuple[Shape, ...]:
        """Shape of each tile."""
        return tuple(tile.shape for tile in self.tiles)

    def reshape(self, *shape: int) -> Tensor:
        """Return a tensor over the same tiles whose trailing sizes differ; the first size stays.

        One size may be -1. No task runs and nothing is copied.
        """
        sizes = list(shape)
        if sizes.count(-1) == 1:
            known = math.prod(size for size in sizes if size != -1)
            sizes[sizes.index(-1)] = math.prod(self.shape) // max(known, 1)
        whole = math.prod(sizes) == math.prod(self.shape) and min(sizes, default=0) > 0
        # The tiles of Context.per_tile have no batch axis, so theirs cannot stay first.
        fits = all(tile.shape[0] * math.prod(sizes[1:]) == math.prod(tile.shape) for tile in self.tiles)
        if not whole or sizes[0] != self.shape[0] or not fits:
            raise TensorShapeError(
                f"{self.name} of shape {self.shape} cannot be seen as {shape}: the batch stays first"
            )
        tiles = tuple(Tile((tile.shape[0], *sizes[1:]), tile.handle) for tile in self.tiles)
        return Tensor(tuple(sizes), tiles, self.dtype, self.name)

    def flatten(self) -> Tensor:
        """Return the tensor with one row per image."""
        return self.reshape(self.shape[0], -1)

    def numpy(self) -> np.ndarray:
        """Return a copy of the values, once the tasks that write them are done."""
        out = np.empty(self.shape, self.dtype)
        flat, at = out.reshape(-1), 0
        for tile in self.tiles:
            with tile.handle.acquire("r") as array:
                flat[at : at + array.size] = array.reshape(-1)
                at += array.size
        return out

    def write(self, values: np.ndarray) -> None:
        """Replace the values, once the tasks that use the old ones are done."""
        values = np.asarray(values, self.dtype)
        if values.shape != self.shape:
            raise TensorShapeError(f"{self.name} has shape {self.shape}, got values of shape {values.shape}")
        flat, at = values.reshape(-1), 0
        for tile in self.tiles:
            with tile.handle.acquire("w") as array:
                array.reshape(-1)[:] = flat[at : at + array.size]
                at += array.size

    def release(self) -> None:
        """Forget the tensor's data, once the tasks that use them are done. Views of it are gone with it."""
        for tile in self.tiles:
            tile.handle.unregister()


def aligned_empty(shape: Shape, dtype: np.dtype[Any]) -> np.ndarray:
    """Return an uninitialised C-contiguous array that starts at a multiple of 64 bytes."""
    bytes_needed = math.prod(shape) * dtype.itemsize
    block = np.empty(bytes_needed + 64, np.uint8)
    start = -block.ctypes.data % 64
    return block[start : start + bytes_needed].view(dtype).reshape(shape)


def cut(runtime: Runtime, array: np.ndarray, tile: int | Sequence[int] | None, name: str) -> Tensor:
    """Register ``array`` in tiles of ``tile`` along its first axis (None: as one tile); the last may be shorter.

    A sequence has the size of each tile.
    """
    rows = array.shape[0] if array.ndim else 0
    if not array.ndim or not array.size:
        raise TensorShapeError(f"{name}: a tensor needs at least one element, got shape {array.shape}")
    if isinstance(tile, Sequence):
        if sum(tile) != rows or min(tile) < 1:
            raise TensorShapeError(f"{name}: tiles of {tuple(tile)} rows do not cut {rows}")
        starts = np.cumsum([0, *tile])[:-1]
    else:
        if tile is not None and tile < 1:
            raise TensorShapeError(f"{name}: tile must be at least 1, got {tile}")
        starts = np.arange(0, rows, tile or rows)
    pieces = np.split(array, starts[1:])
    tiles = tuple(Tile(piece.shape, runtime.register(piece)) for piece in pieces)
    return Tensor(array.shape, tiles, array.dtype, name)
