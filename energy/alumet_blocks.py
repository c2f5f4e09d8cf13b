"""Reads Alumet's CSV block by block: gigabytes at the speed of Arrow's reader, in the memory of a few blocks."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from energy.alumet_csv import (
    GPU_ENERGY,
    GPU_POWER,
    RAPL,
    AlumetError,
    Layout,
    Row,
    base_metric,
    may_become_header,
    parse_time_ns,
    parse_value,
    read_layout,
    row_of,
)

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 1 << 20
_LONGEST_HEADER = 1 << 16
_LARGEST_TABLE = 1 << 16
_JOULES_TEXT = tuple(f"{quote}{metric}" for quote in ("", '"') for metric in (RAPL, GPU_ENERGY, GPU_POWER))
_JOULES = tuple(start.encode() for start in _JOULES_TEXT)


@final
@dataclass
class Lost:
    """Rows that hold joules or watts and could not be read."""

    rows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, rows: int = 1) -> None:
        """Count rows under a reason."""
        if rows:
            self.rows += rows
            self.reasons[reason] = self.reasons.get(reason, 0) + rows


@final
@dataclass(frozen=True)
class Block:
    """The rows of one channel in one block, in the file's order."""

    row: Row
    t_unix_ns: np.ndarray
    values: np.ndarray
    """In the metric's unit: times `row.scale` they are joules, or watts."""


@final
class BlockReader:
    """Reads the whole lines of a file; what it met on the way stands in its attributes.

    Lines that are there when it is made; those that are added later are not read.
    Raises `AlumetError` for a file that is not Alumet's or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.rows_read = 0
        self.torn_bytes = 0
        """Bytes after the last whole line: the agent was writing, or was killed."""
        self.lost = Lost()
        self.not_counted: set[str] = set()
        """Metrics of energy that are not read."""
        self._rows_of_joules = 0
        self._rows: dict[tuple[str, ...], Row | str | None] = {}
        try:
            self._find_ends()
        except OSError as error:
            raise AlumetError(f"{self.path} cannot be read: {error.strerror}") from error

    def _find_ends(self) -> None:
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_LONGEST_HEADER)
            header, newline, _ = start.partition(b"\n")
            self._layout: Layout | None = None
            self._start = self._end = len(header) + len(newline)
            if not newline:
                if not may_become_header(start):
                    raise AlumetError(f"{self.path} is no CSV of Alumet: it starts with {start[:40]!r}")
                self.torn_bytes = size
                return
            self._layout = read_layout(self.path, header)
            self._end = _last_line_end(file, size)
            self.torn_bytes = size - self._end

    def __iter__(self) -> Iterator[Block]:
        layout = self._layout
        if layout is None or self._end <= self._start:
            return
        import pyarrow as pa

        # A file's batches are read ahead, so that the pool's peak is that of a few blocks.
        with pa.OSFile(str(self.path), "rb") as file:
            stream = file.get_stream(self._start, self._end - self._start)
            try:
                reader = _open(stream, layout, self._bad_line)
                for batch in reader:
                    self.rows_read += batch.num_rows
                    yield from self._blocks(layout, batch)
            except pa.ArrowInvalid as error:
                raise AlumetError(f"{self.path} cannot be read: {error}") from error
        self._find_swallowed(layout)

    def _find_swallowed(self, layout: Layout) -> None:
        """Lose the lines of joules that a quote without its end has made part of another line's field."""
        if layout.columns[0] != "metric":
            return
        with self.path.open("rb") as file:
            if not any(b'"' in block for block in _blocks_of(file, self._start, self._end)):
                return
            file.seek(self._start)
            lines = 0
            while file.tell() < self._end:
                lines += file.readline().startswith(_JOULES)
        self.lost.add("a line inside another's quotes", max(0, lines - self._rows_of_joules))

    def _bad_line(self, line: Any) -> str:
        self.rows_read += 1
        text = line.text if isinstance(line.text, str) else ""
        if not text or any(base_metric(word) for word in text.replace('"', "").split(self._delimiter)):
            self.lost.add("a line with the wrong number of fields")
            self._rows_of_joules += text.startswith(_JOULES_TEXT)
        return "skip"

    @property
    def _delimiter(self) -> str:
        assert self._layout is not None
        return self._layout.delimiter

    def _blocks(self, layout: Layout, batch: pa.RecordBatch) -> Iterator[Block]:
        import pyarrow as pa

        metrics = batch.column("metric")
        names = metrics.dictionary.to_pylist()
        wanted = np.array([base_metric(name) is not None for name in names], dtype=bool)
        self.not_counted.update(
            name for name, read in zip(names, wanted, strict=True) if not read and "energy" in name
        )
        chosen = wanted[metrics.indices.to_numpy()]
        self._rows_of_joules += int(chosen.sum())
        if not chosen.any():
            return
        rows = batch.filter(pa.array(chosen))
        times_ns, times_known = _times_ns(rows.column("timestamp"))
        values, values_known = _values(rows.column("value"))
        known = times_known & values_known
        of_row: dict[Row, np.ndarray] = {}
        for row, here in self._identified(layout, rows):
            if isinstance(row, str):
                self.lost.add(row, int(here.sum()))
            elif row is not None:
                of_row[row] = of_row[row] | here if row in of_row else here
        for row, here in of_row.items():
            self.lost.add("a time that is none", int((here & ~times_known).sum()))
            self.lost.add("a value that is none", int((here & times_known & ~values_known).sum()))
            at = np.flatnonzero(here & known)
            if len(at):
                yield Block(row, times_ns[at], values[at])

    def _identified(
        self, layout: Layout, rows: pa.RecordBatch
    ) -> Iterator[tuple[Row | str | None, np.ndarray]]:
        """Each thing that rows of this batch are of, with a mask of those rows; a text says why one is not known."""
        import pyarrow as pa

        texts, codes = [], []
        for name in layout.identity:
            column = rows.column(name)
            # The dictionary is that of the whole batch: only what these rows have keeps the product small.
            used, own = _compact(column.indices.to_numpy(), len(column.dictionary))
            texts.append(column.dictionary.take(pa.array(used)).to_pylist())
            codes.append(own)
        shape = tuple(len(names) for names in texts)
        found, which = _compact(np.ravel_multi_index(codes, shape), math.prod(shape))
        for index, places in enumerate(zip(*np.unravel_index(found, shape), strict=True)):
            identity = tuple(names[place] for names, place in zip(texts, places, strict=True))
            yield self._row(layout, identity), which == index

    def _row(self, layout: Layout, identity: tuple[str, ...]) -> Row | str | None:
        if identity not in self._rows:
            try:
                self._rows[identity] = row_of(dict(zip(layout.identity, identity, strict=True)))
            except ValueError as error:
                self._rows[identity] = str(error)
        return self._rows[identity]


def _compact(codes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The codes below `size` that occur, and for each code its place among them (`numpy.unique`, without sorting)."""
    if size > _LARGEST_TABLE:
        return np.unique(codes, return_inverse=True)
    found = np.flatnonzero(np.bincount(codes, minlength=size))
    places = np.zeros(size, dtype=np.int64)
    places[found] = np.arange(len(found))
    return found, places[codes]


def _open(stream: Any, layout: Layout, bad_line: Callable[[Any], str]) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    texts = dict.fromkeys(layout.identity, pa.dictionary(pa.int32(), pa.string()))
    return csv.open_csv(
        stream,
        read_options=csv.ReadOptions(
            column_names=list(layout.columns), block_size=BLOCK_BYTES, use_threads=False
        ),
        parse_options=csv.ParseOptions(
            delimiter=layout.delimiter, newlines_in_values=True, invalid_row_handler=bad_line
        ),
        convert_options=csv.ConvertOptions(
            column_types={**texts, "timestamp": pa.string(), "value": pa.string()},
            include_columns=[*layout.identity, "timestamp", "value"],
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )


def _times_ns(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Nanoseconds since 1970, and which of them are known."""
    import pyarrow as pa

    try:
        times = texts.cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
        return times.to_numpy(), np.ones(len(texts), dtype=bool)
    except pa.ArrowInvalid:  # one is none: look at each
        found = [parse_time_ns(text) for text in texts.to_pylist()]
    known = np.array([time_ns is not None for time_ns in found])
    return np.array([time_ns or 0 for time_ns in found], dtype=np.int64), known


def _values(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Values, and which of them are known: numbers, finite and not negative."""
    import pyarrow as pa

    try:
        values = texts.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        found = (parse_value(text) for text in texts.to_pylist())
        values = np.array([np.nan if value is None else value for value in found])
    return values, np.isfinite(values) & (values >= 0)


def _blocks_of(file: Any, start: int, end: int) -> Iterator[bytes]:
    file.seek(start)
    while start < end and (block := file.read(min(BLOCK_BYTES, end - start))):
        start += len(block)
        yield block


def _last_line_end(file: Any, size: int) -> int:
    """Where the last whole line of a file of so many bytes ends."""
    end = size
    while end > 0:
        start = max(0, end - _LONGEST_HEADER)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return int(start + found + 1)
        end = start
    return 0
