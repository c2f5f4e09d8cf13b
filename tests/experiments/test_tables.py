from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.tables import TableStream, finish_tables, parquet_path, read_stream, read_table, stream_path
from tests.experiments.conftest import stand_in, wait_for

SCHEMA = pa.schema([("task", pa.int64()), ("codelet", pa.string()), ("predicted_s", pa.float64())])

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # Arrow's columnar format, "IPC Streaming Format"


def columns(first: int, count: int) -> dict[str, object]:
    return {
        "task": np.arange(first, first + count),
        "codelet": ["conv2d"] * count,
        "predicted_s": [None] * count,
    }


def test_a_stream_can_be_read_while_it_grows(tmp_path: Path) -> None:
    stream = TableStream(tmp_path, "tasks", SCHEMA)
    stream.append(columns(0, 10))
    stream.append_row({"task": 10, "codelet": "relu", "predicted_s": 0.25})
    table, torn = read_table(tmp_path, "tasks")
    assert table is not None
    assert not torn
    assert table["task"].to_pylist() == list(range(11))
    assert table["predicted_s"].to_pylist() == [None] * 10 + [0.25]
    stream.close()


def test_a_stream_cut_at_any_byte_loses_its_last_batch_at_most(tmp_path: Path) -> None:
    TableStream(tmp_path, "empty", SCHEMA).close()
    schema_end = stream_path(tmp_path, "empty").stat().st_size - len(END_OF_STREAM)
    stream = TableStream(tmp_path, "tasks", SCHEMA)
    ends = []
    for batch in range(2):
        stream.append(columns(10 * batch, 10))
        ends.append(stream_path(tmp_path, "tasks").stat().st_size)
    stream.close()
    whole = stream_path(tmp_path, "tasks").read_bytes()
    cut = tmp_path / "cut.arrows"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        table, torn = read_stream(cut)
        rows = 10 * sum(end <= length for end in ends)
        assert (0 if table is None else table.num_rows) == rows, f"cut at byte {length}"
        assert torn == (length not in (0, schema_end, *ends)), f"cut at byte {length}"


def test_a_finished_stream_becomes_parquet_with_the_same_rows(tmp_path: Path) -> None:
    stream = TableStream(tmp_path, "tasks", SCHEMA)
    for batch in range(3):
        stream.append(columns(40_000 * batch, 40_000))
    stream.close()
    assert finish_tables(tmp_path) == []
    assert not stream_path(tmp_path, "tasks").exists()
    table, torn = read_table(tmp_path, "tasks")
    assert table is not None
    assert not torn
    assert table.schema.equals(SCHEMA)
    assert table["task"].to_pylist() == list(range(120_000))


@pytest.mark.parametrize(("rows", "compression"), [(10, "UNCOMPRESSED"), (40_000, "ZSTD")])
def test_only_a_long_table_is_compressed(tmp_path: Path, rows: int, compression: str) -> None:
    stream = TableStream(tmp_path, "tasks", SCHEMA)
    stream.append(columns(0, rows))
    stream.close()
    finish_tables(tmp_path)
    about = pq.read_metadata(parquet_path(tmp_path, "tasks"))
    assert about.row_group(0).column(0).compression == compression


def test_a_torn_stream_becomes_parquet_that_says_so(tmp_path: Path) -> None:
    stream = TableStream(tmp_path, "tasks", SCHEMA)
    stream.append(columns(0, 10))
    stream.append(columns(10, 10))
    path = stream_path(tmp_path, "tasks")
    os.truncate(path, path.stat().st_size - 1)
    assert finish_tables(tmp_path) == ["tasks"]
    table, torn = read_table(tmp_path, "tasks")
    assert table is not None
    assert torn
    assert table["task"].to_pylist() == list(range(10))


def test_a_stream_without_a_whole_schema_leaves_no_table(tmp_path: Path) -> None:
    stream_path(tmp_path, "tasks").write_bytes(b"\xff\xff\xff\xff\x10")
    assert finish_tables(tmp_path) == ["tasks"]
    assert read_table(tmp_path, "tasks") == (None, False)


def test_a_row_that_lacks_a_column_is_refused(tmp_path: Path) -> None:
    stream = TableStream(tmp_path, "tasks", SCHEMA)
    with pytest.raises(KeyError, match="codelet"):
        stream.append({"task": [1], "predicted_s": [None]})
    stream.close()


@pytest.mark.parametrize("seed", range(4))
def test_records_are_whole_after_a_kill_at_a_random_moment(
    tmp_path: Path, environment: dict[str, str], seed: int
) -> None:
    reading, writing = os.pipe()
    command = [*stand_in("write_tables", tmp_path), "--events", str(writing), "--parent", str(os.getpid())]
    with subprocess.Popen(command, env=environment, pass_fds=(writing,), stdout=subprocess.DEVNULL) as writer:
        wait_for((tmp_path / "hanging").exists)
        time.sleep(random.Random(seed).uniform(0.05, 0.3))
        writer.send_signal(signal.SIGKILL)
    os.close(reading)
    os.close(writing)
    finish_tables(tmp_path)
    table, _ = read_table(tmp_path, "tasks")
    assert table is not None
    assert table.num_rows > 0
    assert table["task"].to_pylist() == list(range(table.num_rows))
    assert parquet_path(tmp_path, "tasks").exists()
