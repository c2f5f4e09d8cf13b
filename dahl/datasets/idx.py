"""The IDX format of MNIST and its kin: a magic number, the dimensions (big-endian), then the bytes.

Source: http://yann.lecun.com/exdb/mnist/ (bytes 0-1 zero, byte 2 the type, byte 3 the number of dimensions).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dahl.datasets.base import DatasetError

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, ndim: int) -> npt.NDArray[np.uint8]:
    """The uint8 array of an IDX file, gzip-compressed where its name ends in .gz; read-only, no copy is made.

    Raises DatasetError, naming the file, where it is missing, damaged or of another kind.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
    if path.suffix == ".gz":
        data = _decompress(data, path)
    return parse_idx(data, ndim, path)


def parse_idx(data: bytes, ndim: int, path: Path) -> npt.NDArray[np.uint8]:
    """The uint8 array that IDX bytes hold; `path` is for the messages. Raises DatasetError."""
    header_bytes = 4 + 4 * ndim
    if len(data) < 4:
        raise DatasetError(f"{path}: {len(data)} bytes are too few for an IDX file (truncated?)")
    expected = bytes((0, 0, _UNSIGNED_BYTE, ndim))
    if data[:4] != expected:
        raise DatasetError(
            f"{path}: bad magic 0x{data[:4].hex()}, expected 0x{expected.hex()}"
            f" (unsigned bytes in {ndim} dimensions): this is another kind of file"
        )
    if len(data) < header_bytes:
        raise DatasetError(
            f"{path}: {len(data)} bytes, but the header alone takes {header_bytes} (truncated?)"
        )
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, header_bytes, 4))
    found, needed = len(data) - header_bytes, math.prod(shape)
    if found != needed:
        fault = "truncated" if found < needed else "trailing bytes"
        raise DatasetError(
            f"{path}: the header says {' x '.join(map(str, shape))} = {needed} bytes,"
            f" but {found} follow ({fault})"
        )
    return np.frombuffer(data, np.uint8, offset=header_bytes).reshape(shape)


def _decompress(data: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(data)
    except EOFError as error:
        raise DatasetError(f"{path}: the gzip stream ends early ({len(data)} bytes): truncated") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path}: not a sound gzip file ({error})") from error
