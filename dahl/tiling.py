"""How a mini-batch is cut into tiles: all of one size, or of a size for each class of workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from dahl.ops.micro_tiles import MICRO_TILE

TileSizes = int | Mapping[str, int]
"""Images of a tile, or of one by worker class."""


@final
@dataclass(frozen=True)
class Tiling:
    """A mini-batch is cut in rounds: each of them has a tile for each worker, in the size of the worker's class.

    A tile that is larger than what is left gives way to a smaller one; less than the smallest is the last tile.
    The sizes only shape the tasks: which worker takes which is the scheduler's choice.
    """

    round: tuple[int, ...]
    """The images of each tile of a round, largest first; one tile where all are alike."""

    def __post_init__(self) -> None:
        if not self.round or self.round[-1] < 1 or list(self.round) != sorted(self.round, reverse=True):
            raise ValueError(f"a round of tiles has sizes of at least 1, largest first, got {self.round}")

    def tiles(self, batch: int) -> tuple[int, ...]:
        """Images of each tile of a mini-batch, largest first."""
        found: Counter[int] = Counter()
        left = batch
        while left >= self.round[-1]:
            for size in self.round:
                if size <= left:
                    found[size] += 1
                    left -= size
        sizes = [size for size in sorted(found, reverse=True) for _ in range(found[size])]
        return (*sizes, left) if left else tuple(sizes)


def check_tile_sizes(tile: TileSizes, batch_size: int, *, fuse: bool) -> None:
    """Raise ValueError where tiles of these sizes cannot be, or their sums cannot have the bits of other tiles."""
    sizes = {tile} if isinstance(tile, int) else set(tile.values())
    shown = tile if isinstance(tile, int) else dict(tile)
    if not sizes or not all(1 <= size <= batch_size for size in sizes):
        raise ValueError(f"tile must be from 1 to batch_size ({batch_size}), got {shown}")
    if fuse and len(sizes) > 1 and not all(map(is_branch, sizes)):
        raise ValueError(
            f"tile={shown}: with fused tasks tiles of different sizes have {MICRO_TILE}, {2 * MICRO_TILE}, "
            f"{4 * MICRO_TILE}, ... images; fuse=false takes any"
        )


def is_branch(images: int) -> bool:
    """Whether a tile of so many images is a branch of the tree of micro-tiles: 16, 32, 64, ..."""
    return images % MICRO_TILE == 0 and (images // MICRO_TILE).bit_count() == 1


def tiling(tile: TileSizes, worker_classes: Iterable[str]) -> Tiling:
    """Return the tiling for workers of these classes. Raises ValueError where a class has no size."""
    if isinstance(tile, int):
        return Tiling((tile,))
    classes = list(worker_classes)
    for name in classes:
        if name not in tile:
            raise ValueError(
                f"tile={dict(tile)} has no size for workers of class {name}; give it one: {name}: 16"
            )
    return Tiling(tuple(sorted((tile[name] for name in classes), reverse=True)))


def tile_ends(tiles: Iterable[int]) -> list[int]:
    """Where the gradient of each tile ends in the tree that adds them up, in units of the smallest but the last tile.

    As `ends` of SUM_AND_STEP: there is a number for each unit, and those after the last tile's repeat it.
    """
    sizes, ends = list(tiles), list[int]()
    unit = min(sizes[:-1], default=sizes[-1])
    for size in sizes:
        ends.append((ends[-1] if ends else 0) + -(-size // unit))
    return ends + ends[-1:] * (ends[-1] - len(ends))
