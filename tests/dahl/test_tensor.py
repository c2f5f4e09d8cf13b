"""Tensors cut into tiles, on a running StarPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dahl import ops, starpu
from dahl.context import Context
from dahl.tensor import TensorShapeError

WORKERS = min(2, len(os.sched_getaffinity(0)))


@pytest.fixture
def context() -> Iterator[Context]:
    with starpu.Runtime(cpu_workers=WORKERS, trace=False) as runtime:
        yield Context(runtime)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 20), st.integers(1, 25) | st.none(), st.sampled_from([(), (3,), (2, 1, 5)]))
def test_the_tiles_cover_the_rows_in_order_and_the_last_may_be_shorter(
    rows: int, tile: int | None, rest: tuple[int, ...]
) -> None:
    values = numbers(rows, *rest)
    size = rows if tile is None else tile
    with starpu.Runtime(cpu_workers=1, trace=False) as runtime:
        tensor = Context(runtime).tensor(values, tile=tile)
        expected = [values[at : at + size] for at in range(0, rows, size)]
        assert tensor.tile_count == len(expected)
        assert tensor.tile_shapes == tuple(piece.shape for piece in expected)
        for piece, own in zip(expected, tensor.tiles, strict=True):
            np.testing.assert_array_equal(own.handle.array, piece)
        np.testing.assert_array_equal(tensor.numpy(), values)


def test_a_tensor_of_a_shape_is_float32_unless_told_otherwise(context: Context) -> None:
    assert context.tensor((2, 3)).dtype == np.float32
    assert context.tensor((2, 3), dtype=np.int32).numpy().dtype == np.int32
    assert context.tensor(np.zeros((2, 3), np.uint8)).dtype == np.uint8


def test_what_is_written_is_read_back_in_every_tile(context: Context) -> None:
    tensor = context.tensor((7, 2), tile=3)
    tensor.write(numbers(7, 2))
    np.testing.assert_array_equal(tensor.numpy(), numbers(7, 2))
    tensor.write(numbers(7, 2, seed=1))
    np.testing.assert_array_equal(tensor.numpy(), numbers(7, 2, seed=1))


def test_numpy_returns_a_copy(context: Context) -> None:
    tensor = context.tensor(numbers(4))
    tensor.numpy()[:] = 0
    np.testing.assert_array_equal(tensor.numpy(), numbers(4))


def test_reshape_and_flatten_are_views_over_the_same_handles(context: Context) -> None:
    values = numbers(5, 2, 3, 4)
    tensor = context.tensor(values, tile=2)
    for view in (tensor.flatten(), tensor.reshape(5, 24), tensor.reshape(5, -1), tensor.reshape(-1, 24)):
        assert view.tile_shapes == ((2, 24), (2, 24), (1, 24))
        assert [tile.handle for tile in view.tiles] == [tile.handle for tile in tensor.tiles]
        np.testing.assert_array_equal(view.numpy(), values.reshape(5, 24))
    tensor.flatten().write(numbers(5, 24, seed=1))
    np.testing.assert_array_equal(tensor.numpy(), numbers(5, 24, seed=1).reshape(5, 2, 3, 4))


@pytest.mark.parametrize(
    "shape", [(6, 3), (3, 12), (5,), (), (6, -1, -1), (-6, -6), (6, 6, -1, 0), (6, 4, -1)]
)
def test_a_view_of_other_size_or_batch_is_refused(context: Context, shape: tuple[int, ...]) -> None:
    tensor = context.tensor(numbers(6, 6), tile=2, name="pixels")
    with pytest.raises(
        TensorShapeError, match=r"pixels of shape \(6, 6\) cannot be seen as .*: the batch stays first"
    ):
        tensor.reshape(*shape)


def test_two_unknown_sizes_are_refused_even_where_their_product_fits(context: Context) -> None:
    with pytest.raises(TensorShapeError, match="cannot be seen as"):
        context.tensor(numbers(6)).reshape(6, -1, -1)


def test_buffers_of_tiles_have_no_batch_axis_to_reshape_around(context: Context) -> None:
    """A view (2, 36) of 2 buffers of 4x9 would give kernels tiles of 4x36: beyond the end of the buffer."""
    with pytest.raises(TensorShapeError, match="cannot be seen as"):
        context.per_tile((4, 9), 2).flatten()


def test_per_tile_makes_buffers_of_one_shape(context: Context) -> None:
    buffers = context.per_tile((2, 3), 4, dtype=np.float64)
    assert buffers.shape == (4, 2, 3)
    assert buffers.tile_shapes == ((2, 3),) * 4
    buffers.write(np.arange(24.0).reshape(4, 2, 3))
    np.testing.assert_array_equal(buffers.tiles[2].handle.array, np.arange(12.0, 18.0).reshape(2, 3))
    with pytest.raises(ValueError, match="gradients: count must be at least 1, got 0"):
        context.per_tile((2, 3), 0, name="gradients")


def test_by_default_the_array_is_copied(context: Context) -> None:
    values = numbers(6, 2)
    tensor = context.tensor(values, tile=4)
    values[:] = 0
    np.testing.assert_array_equal(tensor.numpy(), numbers(6, 2))
    assert all(tile.handle.array.ctypes.data % 64 == 0 for tile in context.tensor((8, 16), tile=4).tiles)


def test_without_a_copy_the_array_is_the_tensors_memory(context: Context) -> None:
    values = numbers(6, 2)
    tensor = context.tensor(values, tile=4, copy=False)
    assert all(np.shares_memory(tile.handle.array, values) for tile in tensor.tiles)
    tensor.write(numbers(6, 2, seed=1))
    np.testing.assert_array_equal(values, numbers(6, 2, seed=1))


def test_read_only_memory_can_be_read_by_tasks_and_not_written(context: Context, tmp_path: str) -> None:
    path = f"{tmp_path}/values"
    numbers(6, 2).tofile(path)
    values = np.memmap(path, np.float32, "r", shape=(6, 2))
    source, out = context.tensor(values, tile=4, copy=False, name="images"), context.tensor((6, 2), tile=4)
    context.submit(ops.RELU[2], source, out)
    np.testing.assert_array_equal(out.numpy(), np.maximum(numbers(6, 2), 0))
    with pytest.raises(ValueError, match="relu_in_place_2d writes y, but images is in read-only memory"):
        context.submit(ops.RELU_IN_PLACE[2], source)
    with pytest.raises(ValueError, match="relu_2d writes y, but images is in read-only memory"):
        context.submit(ops.RELU[2], out, source.reshape(6, 2))
    with pytest.raises(ValueError, match="read-only"):
        source.write(numbers(6, 2))
    np.testing.assert_array_equal(values, numbers(6, 2))


def test_an_array_with_gaps_is_copied_or_refused(context: Context) -> None:
    gaps = numbers(6, 4)[:, ::2]
    np.testing.assert_array_equal(context.tensor(gaps, tile=2).numpy(), gaps)
    with pytest.raises(ValueError, match="is not C-contiguous"):
        context.tensor(gaps, tile=2, copy=False)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), ()])
def test_a_tensor_without_elements_is_refused(context: Context, shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorShapeError, match="x: a tensor needs at least one element"):
        context.tensor(shape, name="x")


@pytest.mark.parametrize("tile", [0, -3])
def test_a_tile_below_one_is_refused(context: Context, tile: int) -> None:
    with pytest.raises(TensorShapeError, match=f"x: tile must be at least 1, got {tile}"):
        context.tensor((4,), tile=tile, name="x")


def test_values_of_another_shape_are_refused(context: Context) -> None:
    with pytest.raises(TensorShapeError, match=r"x has shape \(4, 2\), got values of shape \(2, 4\)"):
        context.tensor((4, 2), name="x").write(numbers(2, 4))


def test_a_released_tensor_is_refused_by_name_of_its_shape_and_takes_no_memory(context: Context) -> None:
    x, y = context.tensor(numbers(4, 2), tile=2), context.tensor((4, 2), tile=2)
    with context.record() as graph:
        context.submit(ops.RELU[2], x, y)
    graph.submit()
    np.testing.assert_array_equal(y.numpy(), np.maximum(numbers(4, 2), 0))
    x.release()
    x.release()
    with pytest.raises(ValueError, match=r"the handle of an array of shape \(2, 2\) is unregistered"):
        x.numpy()
    with pytest.raises(ValueError, match="is unregistered"):
        context.submit(ops.RELU[2], x, y)
    with pytest.raises(ValueError, match="is unregistered"):
        graph.submit()
    with pytest.raises(ValueError, match="is unregistered"):
        x.reshape(4, 1, 2).write(numbers(4, 1, 2))


def test_the_values_of_a_failed_task_are_not_read() -> None:
    labels = np.array([0, 9], np.int32)
    with starpu.Runtime(cpu_workers=1) as runtime:
        context = Context(runtime)
        correct = context.per_tile((1,), 1, dtype=np.int64)
        context.submit(ops.ACCURACY, context.tensor(numbers(2, 3)), context.tensor(labels), correct)
        with pytest.raises(starpu.KernelError, match=r"accuracy.*a label is outside the classes"):
            correct.numpy()
