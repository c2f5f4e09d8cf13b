"""The power stream: an append-only record of readings that can be read however the run ended.

A file is one header (a magic, a length, JSON), then records of 40 bytes, each with its own checksum and
each batch written by one `write`. A killed writer leaves at most a torn last record, which a reader drops
and reports.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from energy.counters import Step

if TYPE_CHECKING:
    import pandas as pd

_MAGIC = b"JOULES01"
_LENGTH = struct.Struct("<I")
_BODY = struct.Struct("<qqddHH")
_CHECKSUM = struct.Struct("<I")
_NO_RAW = 1 << 15
_RECORD = np.dtype(
    [
        ("t_mono_ns", "<i8"),
        ("raw", "<i8"),
        ("joules", "<f8"),
        ("watts", "<f8"),
        ("channel", "<u2"),
        ("flags", "<u2"),
        ("checksum", "<u4"),
    ]
)


class StreamError(RuntimeError):
    """A power stream cannot be written, or is none."""


@final
class PowerStream:
    """Writes a power stream to `path`, which must not exist yet; `declare` comes first and makes the file.

    Threads may append side by side.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None
        self._index: dict[str, int] = {}
        self._size = 0
        self._lock = threading.Lock()

    def declare(self, channels: Mapping[str, Mapping[str, Any]]) -> None:
        """Say which channels there will be, each with what is to be known of it (quality, component...)."""
        if self._descriptor is not None:
            raise StreamError(f"{self.path} has its channels already")
        # A pair of clocks, so that records can be set beside those of other programs.
        header = {
            "channels": dict(channels),
            "t_mono_ns": time.monotonic_ns(),
            "t_unix_ns": time.time_ns(),
        }
        text = json.dumps(header).encode()
        self._index = {name: index for index, name in enumerate(channels)}
        try:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StreamError(f"{self.path} cannot be made: {error.strerror}") from error
        self._write(_MAGIC + _LENGTH.pack(len(text)) + text)

    def append(self, steps: Iterable[tuple[str, Step]]) -> None:
        """Add records of declared channels. Raises `StreamError` when they cannot be written whole."""
        data = b"".join(self._pack(channel, step) for channel, step in steps)
        with self._lock:
            if self._descriptor is None:
                raise StreamError(f"{self.path} is not open: declare its channels first")
            self._write(data)

    def close(self) -> None:
        """Close the file; harmless when it is closed or was never made."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _pack(self, channel: str, step: Step) -> bytes:
        body = _BODY.pack(
            step.t_ns,
            0 if step.raw is None else step.raw,
            float("nan") if step.joules is None else step.joules,
            float("nan") if step.watts is None else step.watts,
            self._index[channel],
            int(step.flags) | (_NO_RAW if step.raw is None else 0),
        )
        return body + _CHECKSUM.pack(zlib.crc32(body))

    def _write(self, data: bytes) -> None:
        assert self._descriptor is not None
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            # What was written of this batch would shift every record after it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            self.close()
            raise StreamError(f"{self.path} cannot be written: {error.strerror}") from error
        self._size += len(data)


def read_stream(path: Path) -> pd.DataFrame:
    """The records of a stream, in the order in which they were written.

    Columns: `t_mono_ns` (int64), `channel` (str), `raw` (nullable Int64), `joules` and `watts` (float64,
    NaN where they are not known), `flags` (`energy.counters.Flag` bits).
    `attrs` holds the header's `channels` and clocks, `torn_bytes` (of an unfinished last record) and
    `bad_records` (whose checksum is wrong; they are left out). Raises `StreamError` if the file is no power
    stream.
    """
    import pandas as pd

    data = Path(path).read_bytes()
    header, start = _read_header(Path(path), data)
    body = b"" if start is None else data[start:]
    torn_bytes = len(data) if start is None else len(body) % _RECORD.itemsize
    body = body[: len(body) // _RECORD.itemsize * _RECORD.itemsize]
    records = np.frombuffer(body, dtype=_RECORD)
    good = _intact(body, records["checksum"])
    bad_records = int(np.count_nonzero(~good))
    records = records[good]
    no_raw = (records["flags"] & _NO_RAW) != 0
    names = np.array(list(header["channels"]), dtype=object)
    frame = pd.DataFrame(
        {
            "t_mono_ns": records["t_mono_ns"].astype(np.int64),
            "channel": pd.array(names[records["channel"]].tolist(), dtype="str"),
            "raw": pd.arrays.IntegerArray(records["raw"].astype(np.int64), no_raw),
            "joules": records["joules"].astype(np.float64),
            "watts": records["watts"].astype(np.float64),
            "flags": (records["flags"] & ~np.uint16(_NO_RAW)).astype(np.int64),
        }
    )
    frame.attrs.update(header, torn_bytes=torn_bytes, bad_records=bad_records)
    return frame


def to_parquet(stream: Path, path: Path) -> None:
    """Turn a stream into a Parquet file, whole or not at all; `attrs` go along as the file's metadata."""
    frame = read_stream(stream)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        frame.to_parquet(temporary, index=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_header(path: Path, data: bytes) -> tuple[dict[str, Any], int | None]:
    """The header, and where the records start; None, and no channels, for a header cut short."""
    if not data.startswith(_MAGIC[: len(data)]):
        raise StreamError(f"{path} is no power stream: it starts with {data[:8]!r}")
    start = len(_MAGIC) + _LENGTH.size
    if len(data) >= start:
        (length,) = _LENGTH.unpack_from(data, len(_MAGIC))
        if len(data) >= start + length:
            try:
                return json.loads(data[start : start + length]), start + length
            except ValueError as error:
                raise StreamError(f"{path} has a damaged header: {error}") from error
    return {"channels": {}}, None


def _intact(data: bytes, checksums: np.ndarray) -> np.ndarray:
    size = _RECORD.itemsize
    view = memoryview(data)
    found = (zlib.crc32(view[at : at + _BODY.size]) for at in range(0, len(data), size))
    return np.fromiter(found, dtype=np.uint32, count=len(checksums)) == checksums
