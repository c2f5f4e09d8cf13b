import numpy as np
import pytest

from dahl.ops.simd import LANES, keep_last, load, load_splat, multiply_add, splat, store, sum_lanes

from .direct_context import compiled

VALUES = np.arange(40, dtype=np.float32)


@compiled
def _multiply_add_at(a, b, out, offset):
    store(multiply_add(load(a, offset), load_splat(b, offset), splat(np.float32(0.5))), out, offset)


@compiled
def _keep(a, out, count):
    store(keep_last(load(a, 0), count), out, 0)


@compiled
def _sum(a, offset):
    return sum_lanes(load(a, offset))


def test_sixteen_floats_are_read_and_written_at_the_offset_and_no_more():
    out = np.full(40, -1, np.float32)
    _multiply_add_at(VALUES, VALUES * 10, out, 7)
    np.testing.assert_array_equal(out[7:23], VALUES[7:23] + 70 * 0.5)
    assert (np.delete(out, range(7, 23)) == -1).all()


@pytest.mark.parametrize("count", [1, 5, LANES])
def test_only_the_last_lanes_are_kept_and_a_nan_elsewhere_is_gone(count):
    values, out = VALUES[:16] + 1, np.zeros(16, np.float32)
    values[: 16 - count] = np.nan
    _keep(values, out, count)
    np.testing.assert_array_equal(out, np.where(np.arange(16) >= 16 - count, VALUES[:16] + 1, 0))


def test_the_lanes_add_up():
    assert _sum(VALUES, 3) == VALUES[3:19].sum()
