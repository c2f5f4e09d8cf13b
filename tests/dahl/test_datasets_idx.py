import gzip
import re
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dahl.datasets import DatasetError
from dahl.datasets.idx import parse_idx, read_idx

NAME = Path("some-images")


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


byte_arrays = arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6))


@given(byte_arrays)
def test_any_array_of_bytes_is_read_back(array):
    np.testing.assert_array_equal(parse_idx(idx_bytes(array), array.ndim, NAME), array, strict=True)


@given(byte_arrays, st.data())
def test_a_file_cut_anywhere_is_called_truncated(array, data):
    whole = idx_bytes(array)
    kept = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DatasetError, match=r"some-images: .*truncated"):
        parse_idx(whole[:kept], array.ndim, NAME)


@given(byte_arrays, st.binary(min_size=1, max_size=20))
def test_bytes_after_the_end_are_an_error(array, extra):
    with pytest.raises(DatasetError, match=r"some-images: .*trailing bytes"):
        parse_idx(idx_bytes(array) + extra, array.ndim, NAME)


@given(st.binary(max_size=64), st.integers(1, 4))
def test_arbitrary_bytes_give_an_array_of_their_declared_size_or_a_data_set_error(data, ndim):
    try:
        array = parse_idx(data, ndim, NAME)
    except DatasetError:
        return
    assert idx_bytes(array) == data


@given(st.binary(max_size=16), st.integers(1, 4), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_a_right_magic_with_any_header_gives_an_array_or_a_data_set_error(tail, ndim, sizes):
    data = struct.pack(f">HBB{ndim}I", 0, 8, ndim, *sizes[:ndim]) + tail
    if len(tail) == np.prod(sizes[:ndim]):
        assert parse_idx(data, ndim, NAME).shape == tuple(sizes[:ndim])
    else:
        with pytest.raises(DatasetError, match="the header says"):
            parse_idx(data, ndim, NAME)


def test_dimensions_whose_product_overflows_64_bits_are_an_error():
    data = struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1) + b"x"
    with pytest.raises(DatasetError, match="truncated"):
        parse_idx(data, 3, NAME)


def test_labels_where_images_are_expected_show_both_magic_numbers():
    with pytest.raises(DatasetError, match="bad magic 0x00000801, expected 0x00000803"):
        parse_idx(idx_bytes(np.zeros(100, np.uint8)), 3, NAME)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_gzip_file_with_one_changed_byte_of_content_is_an_error_or_reads_the_same(data, tmp_path_factory):
    array = np.arange(200, dtype=np.uint8).reshape(2, 10, 10)
    whole = bytearray(gzip.compress(idx_bytes(array), mtime=0))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("idx") / "images.gz"
    path.write_bytes(whole)
    # Only the header's time, flags and system may change without a trace.
    if at in (3, 4, 5, 6, 7, 8, 9):
        with suppress(DatasetError):
            np.testing.assert_array_equal(read_idx(path, 3), array)
    else:
        with pytest.raises(DatasetError, match=re.escape(str(path))):
            read_idx(path, 3)


def test_a_cut_gzip_file_says_truncated(tmp_path):
    path = tmp_path / "images.gz"
    whole = gzip.compress(idx_bytes(np.zeros((5, 8, 8), np.uint8)))
    path.write_bytes(whole[:-9])
    with pytest.raises(DatasetError, match=r"images\.gz: the gzip stream ends early .*truncated"):
        read_idx(path, 3)


def test_a_file_that_is_not_gzip_says_so(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(DatasetError, match=r"images\.gz: not a sound gzip file"):
        read_idx(path, 3)


def test_reading_makes_no_copy_and_is_read_only(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(np.ones((3, 2, 2), np.uint8)))
    array = read_idx(path, 3)
    assert not array.flags.writeable
    assert not array.flags.owndata
