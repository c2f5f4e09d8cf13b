import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy import Flag, PowerStream, Step, StreamError, read_stream, to_parquet
from energy.stream import pack_record

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
    records_start = len(data) - 40 * (len(STEPS) + 1)  # the last one holds the clocks
    for size in range(len(data) + 1):
        (tmp_path / "cut").write_bytes(data[:size])
        frame = read_stream(tmp_path / "cut")
        whole, torn = divmod(size - records_start, 40) if size >= records_start else (0, size)
        assert (len(frame), frame.attrs["torn_bytes"]) == (min(whole, len(STEPS)), torn)


def test_a_file_that_a_crash_filled_with_zeros_gives_its_whole_records(tmp_path: Path) -> None:
    path = write(tmp_path / "power")
    with path.open("ab") as file:
        file.write(bytes(100))
    frame = read_stream(path)
    assert (len(frame), frame.attrs["bad_records"], frame.attrs["torn_bytes"]) == (4, 2, 20)


def test_a_damaged_record_is_left_out_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "power")
    data = bytearray(path.read_bytes())
    data[-115] ^= 1
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
    assert (len(frame), frame.attrs["torn_bytes"]) == (2, 20)
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


@given(cuts=st.lists(st.integers(0, 39), min_size=1, max_size=4), data=st.data())
def test_records_after_a_torn_one_are_read_wherever_they_start(cuts: list[int], data: st.DataObject) -> None:
    """Two writers, of which one died or found the disk full in the middle of a record."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, "power"), [])
        header = path.read_bytes()[:-40]
        records = [pack_record(0, t_ns, t_ns, None, None, 0) for t_ns in range(10)]
        for cut in cuts:
            torn = pack_record(0, 99, 99, None, None, 0)[:cut]
            records.insert(data.draw(st.integers(0, len(records))), torn)
        path.write_bytes(header + b"".join(records))
        frame = read_stream(path)
    assert frame["raw"].tolist() == list(range(10))
    assert frame.attrs["torn_bytes"] + 40 * frame.attrs["bad_records"] == sum(cuts)


def test_two_processes_append_side_by_side(tmp_path: Path) -> None:
    stream = PowerStream(tmp_path / "power")
    stream.declare(CHANNELS)
    program = f"""
from pathlib import Path
from energy import Flag, PowerStream
from energy.stream import pack_record
stream = PowerStream(Path({str(tmp_path / "power")!r}))
stream.join()
for t_ns in range(2000):
    stream.append_records([pack_record(0, t_ns, t_ns, None, None, 0)])
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=os.getcwd()) as other:
        own = 0
        while other.poll() is None:
            stream.append([("model:gpu", Step(own, None, 1.0, 1.0, Flag.BY_MODEL))])
            own += 1
    stream.close()
    frame = read_stream(tmp_path / "power")
    assert (frame.attrs["torn_bytes"], frame.attrs["bad_records"]) == (0, 0)
    theirs = frame[frame["channel"] == "rapl:package-0"]
    assert theirs["raw"].tolist() == list(range(2000))
    assert frame[frame["channel"] == "model:gpu"]["t_mono_ns"].tolist() == list(range(own))


def test_the_clocks_are_kept_at_the_start_and_the_end_and_a_step_of_the_wall_clock_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = PowerStream(tmp_path / "power")
    stream.declare(CHANNELS)
    stream.append(STEPS)
    hour_ns = 3600 * 10**9
    stepped_ns = time.time_ns() - hour_ns
    monkeypatch.setattr(time, "time_ns", lambda: stepped_ns)
    stream.close()
    frame = read_stream(tmp_path / "power")
    assert frame["t_mono_ns"].tolist() == [1_000, 2_000, 2_500, 3_000]
    (mono_ns, unix_ns), (end_mono_ns, end_unix_ns) = frame.attrs["clocks"]
    assert (mono_ns, unix_ns) == (frame.attrs["t_mono_ns"], frame.attrs["t_unix_ns"])
    assert mono_ns <= end_mono_ns <= time.monotonic_ns()
    assert end_unix_ns == stepped_ns < unix_ns


def test_a_stream_in_a_small_file_system_ends_where_it_is_full(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root mounts a file system")
    try:
        stream = PowerStream(tmp_path / "power")
        stream.declare(CHANNELS)
        appended = 0

        def fill() -> None:
            nonlocal appended
            while appended < 10_000:
                stream.append([("rapl:package-0", Step(appended, appended, None, None, Flag.OK))] * 7)
                appended += 7

        with pytest.raises(StreamError, match="power cannot be written: No space left on device"):
            fill()
        frame = read_stream(tmp_path / "power")
        assert appended <= len(frame) < appended + 7
        assert frame["raw"].tolist()[:appended] == [7 * (index // 7) for index in range(appended)]
        assert frame.attrs["bad_records"] == 0
    finally:
        subprocess.run(["umount", tmp_path], check=True)
