"""Tables of a run: Arrow IPC streams (`NAME.arrows`) while it runs, `NAME.parquet` once it has ended.

A Parquet file whose writer was killed cannot be read at all; a stream loses its last batch at most.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from experiments.records import sync_folder

TABLES = ("epochs", "windows", "guard", "breakdown", "transfers", "tasks", "decisions")
"""The tables that are Arrow streams while a trial runs; `power` is a stream of `energy.stream`."""

_END_BYTES = 8  # Arrow takes a tail that is shorter than a message's length for the end of the stream
_ROW_GROUP_ROWS = 65536
_SMALL_BYTES = (
    1 << 18
)  # of a stream: compressed, a table of so little is larger, and takes twice as long to read


class TableStream:
    """An append-only table that another process can read at any moment, or after this one was killed."""

    def __init__(self, run_dir: Path, name: str, schema: pa.Schema) -> None:
        self.name = name
        self._run_dir = run_dir
        self._schema = schema
        self._file = pa.OSFile(str(stream_path(run_dir, name)), "wb")
        self._writer = pa.ipc.new_stream(self._file, schema)

    def append(self, columns: Mapping[str, Any]) -> None:
        """Append rows: one array, NumPy array or sequence per column of the schema, all of one length.

        Raises KeyError for a column that is missing, pyarrow.ArrowInvalid for values that do not fit.
        """
        arrays = [pa.array(columns[field.name], type=field.type) for field in self._schema]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        self.append({field.name: [row[field.name]] for field in self._schema})

    def close(self) -> None:
        """End the stream; the file stays a stream until `to_parquet`."""
        self._writer.close()
        self._file.close()


def stream_path(run_dir: Path, name: str) -> Path:
    """Where the stream of a table lies while the trial runs."""
    return run_dir / f"{name}.arrows"


def power_stream_path(run_dir: Path) -> Path:
    """Where the power stream lies while the trial runs."""
    return run_dir / "power.stream"


def parquet_path(run_dir: Path, name: str) -> Path:
    """Where a table lies once the trial has ended."""
    return run_dir / f"{name}.parquet"


class _Stream:
    """The whole batches of a stream, one by one; `torn` is known once they are through."""

    def __init__(self, source: pa.NativeFile) -> None:
        self._source = source
        self.torn = False
        self.schema: pa.Schema | None = None
        """None where the file ends before its schema does."""
        try:
            self._reader = pa.ipc.open_stream(source)
            self.schema = self._reader.schema
        except (pa.ArrowInvalid, OSError):
            self.torn = source.size() > 0  # an empty file is a stream that nothing was written to

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while self.schema is not None:
            whole_bytes = self._source.tell()
            try:
                yield self._reader.read_next_batch()
            except StopIteration:
                self.torn = 0 < self._source.size() - whole_bytes < _END_BYTES
                return
            except (pa.ArrowInvalid, OSError):
                self.torn = True
                return


def read_stream(path: Path) -> tuple[pa.Table | None, bool]:
    """The whole batches of a stream, and whether something torn follows them.

    The table is None where the file ends before its schema does, which is written with the first batch.
    """
    with pa.OSFile(str(path), "rb") as source:
        stream = _Stream(source)
        batches = list(stream)
        table = None if stream.schema is None else pa.Table.from_batches(batches, schema=stream.schema)
        return table, stream.torn


def read_table(run_dir: Path, name: str) -> tuple[pa.Table | None, bool]:
    """A table of a run that has ended, runs, or was killed, and whether its last rows are lost.

    None where the run has no such table.
    """
    if parquet_path(run_dir, name).exists():
        with pq.ParquetFile(parquet_path(run_dir, name)) as file:
            # Threads cost more than a small table takes.
            whole = file.read(use_threads=file.metadata.num_rows > _ROW_GROUP_ROWS)
            return whole, (file.metadata.metadata or {}).get(b"torn") == b"true"
    if stream_path(run_dir, name).exists():
        return read_stream(stream_path(run_dir, name))
    return None, False


def to_parquet(run_dir: Path, name: str) -> bool:
    """Turn the stream of a table, if there is one, into Parquet; True where a torn tail was dropped."""
    source_path = stream_path(run_dir, name)
    if not source_path.exists():
        return False
    target = parquet_path(run_dir, name)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with pa.OSFile(str(source_path), "rb") as source:
        stream = _Stream(source)
        if stream.schema is not None:
            compression = "zstd" if source.size() > _SMALL_BYTES else "none"
            _write_parquet(stream, stream.schema, temporary, compression)
            os.replace(temporary, target)
    source_path.unlink()
    sync_folder(run_dir)
    return stream.torn


def _write_parquet(stream: _Stream, schema: pa.Schema, path: Path, compression: str) -> None:
    """Write batch by batch, so that a long trace need not fit into memory."""
    with pq.ParquetWriter(path, schema, compression=compression) as writer:
        pending: list[pa.RecordBatch] = []
        for batch in stream:
            pending.append(batch)
            if sum(item.num_rows for item in pending) >= _ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(pending, schema=schema))
                pending = []
        writer.write_table(pa.Table.from_batches(pending, schema=schema))
        writer.add_key_value_metadata({"torn": "true" if stream.torn else "false"})
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def finish_power(run_dir: Path) -> bool:
    """The same for the power stream, if there is one."""
    from energy import stream

    source = power_stream_path(run_dir)
    if not source.exists():
        return False
    about = stream.read_stream(source).attrs
    stream.to_parquet(source, parquet_path(run_dir, "power"))
    source.unlink()
    sync_folder(run_dir)
    return bool(about["torn_bytes"] or about["bad_records"])


def finish_tables(run_dir: Path) -> list[str]:
    """Turn every stream of a run into Parquet; the names of those that lost a torn tail."""
    torn = [name for name in TABLES if to_parquet(run_dir, name)]
    return [*torn, "power"] if finish_power(run_dir) else torn
