"""How mini-batches are cut into tiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dahl.tiling import Tiling, check_tile_sizes, tile_ends, tiling

NODE = ("core", "core", "core", "card")


@pytest.mark.parametrize(
    ("tile", "batch", "expected"),
    [
        (16, 64, (16, 16, 16, 16)),
        (16, 40, (16, 16, 8)),
        (64, 40, (40,)),
        ({"core": 16, "card": 64}, 224, (64, 64, 16, 16, 16, 16, 16, 16)),
        ({"core": 16, "card": 64}, 40, (16, 16, 8)),
        ({"core": 16, "card": 64}, 100, (64, 16, 16, 4)),
        ({"core": 64, "card": 16}, 160, (64, 64, 16, 16)),
        ({"core": 5, "card": 7}, 22, (7, 5, 5, 5)),
        ({"core": 16, "card": 64, "spare": 8}, 112, (64, 16, 16, 16)),
    ],
)
def test_a_round_has_a_tile_for_each_worker(tile: object, batch: int, expected: tuple[int, ...]) -> None:
    assert tiling(tile, NODE).tiles(batch) == expected  # type: ignore[arg-type] # a mapping or a number


@given(st.lists(st.integers(1, 100), min_size=1, max_size=6), st.integers(1, 1000))
def test_tiles_cover_the_mini_batch_largest_first(sizes: list[int], batch: int) -> None:
    tiles = Tiling(tuple(sorted(sizes, reverse=True))).tiles(batch)
    assert sum(tiles) == batch
    assert list(tiles) == sorted(tiles, reverse=True)
    assert set(tiles[:-1]) <= set(sizes)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(1, 1000))
def test_every_item_is_a_branch_of_the_tree(powers: list[int], batch: int) -> None:
    """It starts at a multiple of its size, a power of two; the last one may be cut off."""
    tiles = Tiling(tuple(sorted((16 << power for power in powers), reverse=True))).tiles(batch)
    ends = tile_ends(tiles)
    starts = [0, *ends]
    assert len(ends) >= len(tiles)
    assert set(ends[len(tiles) :]) <= {ends[len(tiles) - 1]}
    for start, end in zip(starts, ends[: len(tiles)], strict=False):
        assert (end - start).bit_count() == 1
        assert start % (end - start) == 0


def test_a_class_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no size for workers of class card; give it one: card: 16"):
        tiling({"core": 16}, NODE)


def test_with_fused_tasks_sizes_that_differ_are_branches() -> None:
    check_tile_sizes({"cpu": 16, "cuda": 64}, 64, fuse=True)
    check_tile_sizes({"cpu": 24, "cuda": 24}, 64, fuse=True)
    check_tile_sizes({"cpu": 24, "cuda": 48}, 64, fuse=False)
    with pytest.raises(ValueError, match=r"16, 32, 64, ... images; fuse=false takes any"):
        check_tile_sizes({"cpu": 16, "cuda": 48}, 64, fuse=True)


@pytest.mark.parametrize("tile", [0, 65, {}, {"cpu": 16, "cuda": 65}, {"cpu": 0}])
def test_a_tile_is_from_1_to_the_mini_batch(tile: object) -> None:
    with pytest.raises(ValueError, match=r"tile must be from 1 to batch_size \(64\), got"):
        check_tile_sizes(tile, 64, fuse=False)  # type: ignore[arg-type] # a mapping or a number
