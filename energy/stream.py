"""The power stream: an append-only record of readings that can be read however the run ended.

A file is one header (a magic, a length, JSON), then records of 40 bytes, each with its own checksum and
each batch appended by one `write`. Two processes may append: a sampler of its own and the run itself.
A writer that is killed, or finds the disk full, leaves at most one torn record, which a reader drops and
reports; it finds the next whole record, wherever it starts.
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
_PACK, _PACK_CHECKSUM, _crc32 = _BODY.pack, _CHECKSUM.pack, zlib.crc32
_NO_RAW = 1 << 15
_CLOCKS = 0xFFFF
"""In place of a channel: the record is no reading, its `raw` is the wall clock in ns at `t_mono_ns`."""
_BETWEEN_CLOCKS_NS = 10 * 10**9
_NAN = float("nan")
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


def pack_record(
    channel: int, t_ns: int, raw: int | None, joules: float | None, watts: float | None, flags: int
) -> bytes:
    """One record; `channel` is the place of its name among those declared."""
    if raw is None or joules is None or watts is None:
        if raw is None:
            raw, flags = 0, flags | _NO_RAW
        joules = _NAN if joules is None else joules
        watts = _NAN if watts is None else watts
    body = _PACK(t_ns, raw, joules, watts, channel, flags)
    return body + _PACK_CHECKSUM(_crc32(body))


@final
class PowerStream:
    """Writes a power stream to `path`.

    `declare` comes first and makes the file, which must not exist yet; `join` opens it in another process.
    Threads and processes may append side by side.
    The monotonic and the wall clock are written together at the start, every 10 s and at the end, so that
    records can be set beside those of other programs even where the wall clock was set meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None
        self._index: dict[str, int] = {}
        self._clocks_ns = 0
        self._lock = threading.Lock()

    def declare(self, channels: Mapping[str, Mapping[str, Any]]) -> None:
        """Say which channels there will be, each with what is to be known of it (quality, component...)."""
        self._check_closed()
        if len(channels) >= _CLOCKS:
            raise StreamError(f"{self.path} cannot hold {len(channels)} channels, {_CLOCKS - 1} at most")
        self._clocks_ns = time.monotonic_ns()
        header = {"channels": dict(channels), "t_mono_ns": self._clocks_ns, "t_unix_ns": time.time_ns()}
        text = json.dumps(header).encode()
        self._index = {name: index for index, name in enumerate(channels)}
        self._descriptor = self._opened(os.O_CREAT | os.O_EXCL, "made")
        self._write(_MAGIC + _LENGTH.pack(len(text)) + text)

    def join(self) -> None:
        """Open the file that another process has declared."""
        self._check_closed()
        self._clocks_ns = time.monotonic_ns()
        self._descriptor = self._opened(0, "opened")

    def _check_closed(self) -> None:
        if self._descriptor is not None:
            raise StreamError(f"{self.path} has its channels already")

    def _opened(self, flags: int, done: str) -> int:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, 0o644)
        except OSError as error:
            raise StreamError(f"{self.path} cannot be {done}: {error.strerror}") from error

    def append(self, steps: Iterable[tuple[str, Step]]) -> None:
        """Add records of declared channels. Raises `StreamError` when they cannot be written whole."""
        self.append_records(
            [
                pack_record(
                    self._index[channel], step.t_ns, step.raw, step.joules, step.watts, int(step.flags)
                )
                for channel, step in steps
            ]
        )

    def append_records(self, records: list[bytes]) -> None:
        """Add records that are packed already. Raises `StreamError` when they cannot be written whole."""
        with self._lock:
            if self._descriptor is None:
                raise StreamError(f"{self.path} is not open: declare its channels first")
            now_ns = time.monotonic_ns()
            if now_ns - self._clocks_ns >= _BETWEEN_CLOCKS_NS:
                self._clocks_ns = now_ns
                records = [*records, _clocks()]
            self._write(b"".join(records))

    def close(self) -> None:
        """Write the clocks and close the file; harmless when it is closed or was never made."""
        with self._lock:
            if self._descriptor is not None:
                # Without its last pair of clocks a stream is whole; a full disk was told of where it mattered.
                with contextlib.suppress(StreamError):
                    self._write(_clocks())
                self._let_go()

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _write(self, data: bytes) -> None:
        assert self._descriptor is not None
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self._let_go()
            raise StreamError(f"{self.path} cannot be written: {error.strerror}") from error


def _clocks() -> bytes:
    before_ns = time.monotonic_ns()
    unix_ns = time.time_ns()
    return pack_record(_CLOCKS, (before_ns + time.monotonic_ns()) // 2, unix_ns, None, None, 0)


def read_stream(path: Path) -> pd.DataFrame:
    """The records of a stream, in the order in which they were written.

    Columns: `t_mono_ns` (int64), `channel` (str), `raw` (nullable Int64), `joules` and `watts` (float64,
    NaN where they are not known), `flags` (`energy.counters.Flag` bits).
    `attrs` holds the header's `channels`, `clocks` (pairs of monotonic and wall time in ns, the first of the
    start, which are `t_mono_ns` and `t_unix_ns` too, the last of the end), `torn_bytes` (of unfinished
    records) and `bad_records` (whose checksum is wrong; they are left out). Raises `StreamError` if the file is
    no power stream.
    """
    import pandas as pd

    data = Path(path).read_bytes()
    header, start = _read_header(Path(path), data)
    records, lost = _whole_records(data, len(data) if start is None else start)
    is_clock = records["channel"] == _CLOCKS
    pairs = records[is_clock]
    records = records[~is_clock]
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
    first = [[header["t_mono_ns"], header["t_unix_ns"]]] if start is not None else []
    later = [[int(pair["t_mono_ns"]), int(pair["raw"])] for pair in pairs]
    frame.attrs.update(
        header,
        clocks=first + later,
        torn_bytes=len(data) if start is None else sum(size % _RECORD.itemsize for size in lost),
        bad_records=sum(size // _RECORD.itemsize for size in lost),
    )
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


def _whole_records(data: bytes, start: int) -> tuple[np.ndarray, list[int]]:
    """The records from `start` on whose checksums hold, and the sizes in bytes of what lies between them."""
    size, view = _RECORD.itemsize, memoryview(data)
    last = len(data) - size

    def is_whole(at: int) -> bool:
        found: int = _CHECKSUM.unpack_from(data, at + _BODY.size)[0]
        return zlib.crc32(view[at : at + _BODY.size]) == found

    runs, lost, at = [], [], start
    while at < len(data):
        end = at
        while end <= last and is_whole(end):
            end += size
        runs.append(np.frombuffer(data, _RECORD, (end - at) // size, at))
        at = end
        while at <= last and not is_whole(at):
            at += 1
        if at > last:
            at = len(data)
        if at > end:
            lost.append(at - end)
    return np.concatenate([np.empty(0, _RECORD), *runs]), lost
