"""What a trial tells its supervisor while it runs: one JSON object per line over a pipe.

Events: loading, started, notice, calibrating, epoch_start, batch, epoch_end, evaluated, window, failed,
finished; of a calibration: kinds, measured, checked.
Each carries `event` and `t_mono_ns`; the fields of each are those that `experiments.progress` shows.
"""

from __future__ import annotations

import io
import json
import math
import numbers
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO, cast

Event = dict[str, Any]


def plain(value: Any) -> Any:
    """The value as JSON can hold it: a number that is not finite becomes None, NumPy's become Python's."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return str(value)


class EventWriter:
    """Writes events to an inherited pipe, or as readable lines to stderr where there is none.

    A supervisor that has stopped reading never holds up a measured epoch: a `batch` event that finds the
    pipe full is dropped. All others wait for room.
    """

    def __init__(self, fd: int | None, min_batch_interval_s: float = 0.2) -> None:
        self._fd = fd
        self._min_batch_interval_ns = int(min_batch_interval_s * 1e9)
        self._next_batch_ns = 0
        if fd is not None:
            os.set_inheritable(fd, False)
            os.set_blocking(fd, False)

    def emit(self, event: str, **fields: Any) -> None:
        """Send one event, waiting until the pipe has room."""
        data = self._line(event, fields)
        if self._fd is None:
            sys.stderr.write(data.decode())
            return
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                select.select([], [self._fd], [])

    def batch_is_due(self) -> bool:
        """Whether the last `batch` event is long enough ago for another one."""
        return time.monotonic_ns() >= self._next_batch_ns

    def batch(self, **fields: Any) -> None:
        """Send a `batch` event, unless the last one is too recent or the pipe is full."""
        if self._fd is None or not self.batch_is_due():
            return
        data = self._line("batch", fields)
        if len(data) > select.PIPE_BUF:  # longer ones could be written in part
            return
        try:
            os.write(self._fd, data)
        except BlockingIOError:
            return
        self._next_batch_ns = time.monotonic_ns() + self._min_batch_interval_ns

    @staticmethod
    def _line(event: str, fields: dict[str, Any]) -> bytes:
        record = {"event": event, "t_mono_ns": time.monotonic_ns(), **plain(fields)}
        return (json.dumps(record, allow_nan=False) + "\n").encode()


class _ReportedText(io.TextIOBase):
    """Passes text on and sends its last line as an event, twice a second at most."""

    def __init__(self, events: EventWriter, event: str, stream: TextIO) -> None:
        self._events, self._event, self._stream = events, event, stream
        self._next_s = 0.0

    def write(self, text: str) -> int:
        self._stream.write(text)
        lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
        if lines and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + 0.5
            self._events.emit(self._event, message=lines[-1][:200])
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def report_stderr(events: EventWriter, event: str) -> Iterator[None]:
    """Show what the block writes to stderr, such as a progress bar, on the terminal; the log gets it too."""
    with redirect_stderr(cast(TextIO, _ReportedText(events, event, sys.stderr))):
        yield


class EventReader:
    """Cuts what arrives on the pipe into events; a torn last line is never an event."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes; a line that is none becomes `unreadable`, with its `line`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [self._parse(line) for line in lines if line]

    @staticmethod
    def _parse(line: bytes) -> Event:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
        return {"event": "unreadable", "line": line[:200].decode(errors="replace")}
