import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from energy import Flag, PowerStream, Step, StreamError, read_stream, to_parquet

CHANNELS = {"rapl:package-0": {"quality": "measured"}, "model:gpu": {"quality": "estimated"}}
STEPS = [
    ("rapl:package-0", Step(1_000, 5_000_000_000, None, None, Flag.FIRST)),
    ("rapl:package-0", Step(2_000, None, None, None, Flag.GAP)),
    ("model:gpu", Step(2_500, None, 12.5, 250.0, Flag.BY_MODEL)),
    ("rapl:package-0", Step(3_000, 2**62, 1e-6, 1.0, Flag.WRAPPED)),
]


def write(path: Path, steps: list[tuple[str, Step]] = STEPS) -> Path:
    stream = PowerStream(path)
    stream.declare(CHANNELS)
    for step in steps:
        stream.append([step])
    stream.close()
    return path


def test_what_was_written_is_read_back_in_order(tmp_path: Path) -> None:
    frame = read_stream(write(tmp_path / "power"))
    assert list(frame.columns) == ["t_mono_ns", "channel", "raw", "joules", "watts", "flags"]
    assert frame["t_mono_ns"].tolist() == [1_000, 2_000, 2_500, 3_000]
    assert frame["channel"].tolist() == ["rapl:package-0", "rapl:package-0", "model:gpu", "rapl:package-0"]
    assert frame["raw"].tolist() == [5_000_000_000, pd.NA, pd.NA, 2**62]
    assert frame["joules"].isna().tolist() == [True, True, False, False]
    assert frame["watts"].tolist()[2:] == [250.0, 1.0]
    assert [Flag(flags) for flags in frame["flags"]] == [Flag.FIRST, Flag.GAP, Flag.BY_MODEL, Flag.WRAPPED]
    assert frame.attrs["channels"] == CHANNELS
    assert (frame.attrs["torn_bytes"], frame.attrs["bad_records"]) == (0, 0)


def test_a_stream_cut_anywhere_gives_its_whole_records_and_tells_of_the_rest(tmp_path: Path) -> None:
    data = write(tmp_path / "power").read_bytes()
    records_start = len(data) - 40 * len(STEPS)
    for size in range(len(data) + 1):
        (tmp_path / "cut").write_bytes(data[:size])
        frame = read_stream(tmp_path / "cut")
        whole, torn = divmod(size - records_start, 40) if size >= records_start else (0, size)
        assert (len(frame), frame.attrs["torn_bytes"]) == (whole, torn)


def test_a_file_that_a_crash_filled_with_zeros_gives_its_whole_records(tmp_path: Path) -> None:
    path = write(tmp_path / "power")
    with path.open("ab") as file:
        file.write(bytes(100))
    frame = read_stream(path)
    assert (len(frame), frame.attrs["bad_records"], frame.attrs["torn_bytes"]) == (4, 2, 20)


def test_a_damaged_record_is_left_out_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "power")
    data = bytearray(path.read_bytes())
    data[-75] ^= 1
    path.write_bytes(data)
    frame = read_stream(path)
    assert frame["t_mono_ns"].tolist() == [1_000, 2_000, 3_000]
    assert frame.attrs["bad_records"] == 1


def test_a_file_that_is_no_stream_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("something else")
    with pytest.raises(StreamError, match=r"notes\.txt is no power stream"):
        read_stream(tmp_path / "notes.txt")


def test_a_writer_that_is_killed_leaves_every_record_that_it_appended(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from energy import Flag, PowerStream, Step
stream = PowerStream(Path({str(tmp_path / "power")!r}))
stream.declare({{"rapl:package-0": {{}}}})
for t_ns in range(1000):
    stream.append([("rapl:package-0", Step(t_ns, t_ns, None, None, Flag.OK))])
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, cwd=os.getcwd())
    assert ended.returncode == -9
    assert read_stream(tmp_path / "power")["raw"].tolist() == list(range(1000))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_stream_that_cannot_grow_says_so_and_keeps_its_whole_records(tmp_path: Path) -> None:
    stream = PowerStream(tmp_path / "power")
    stream.declare(CHANNELS)
    header = (tmp_path / "power").stat().st_size
    with file_size_limit(header + 100):
        stream.append(STEPS[:2])
        with pytest.raises(StreamError, match="power cannot be written: File too large"):
            stream.append(STEPS[2:])
    frame = read_stream(tmp_path / "power")
    assert (len(frame), frame.attrs["torn_bytes"]) == (2, 0)
    with pytest.raises(StreamError, match="not open"):
        stream.append(STEPS)


def test_a_stream_never_overwrites_a_file(tmp_path: Path) -> None:
    (tmp_path / "power").write_text("kept")
    with pytest.raises(StreamError, match="File exists"):
        PowerStream(tmp_path / "power").declare(CHANNELS)
    assert (tmp_path / "power").read_text() == "kept"


def test_parquet_holds_the_same_records_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = write(tmp_path / "power")
    to_parquet(path, tmp_path / "power.parquet")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["power", "power.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "power.parquet"), read_stream(path))


def test_parquet_of_what_cannot_be_read_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "power").write_text("something else")
    with pytest.raises(StreamError):
        to_parquet(tmp_path / "power", tmp_path / "power.parquet")
    assert not (tmp_path / "power.parquet").exists()
