"""kill -9 of the run and of its sampler, at random moments: what is left behind holds true joules, once each."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from bisect import bisect
from pathlib import Path
from typing import Any

import pytest

from energy import Flag, read_stream
from tests.energy.sources import ClockSource
from tests.energy.test_process_sampler import is_alive, wait_for

FEW, MANY = 3, 50
TIMES = [
    pytest.param(seed, marks=[] if seed < FEW else [pytest.mark.slow], id=str(seed)) for seed in range(MANY)
]


def start(folder: Path, source: ClockSource, kind: str) -> tuple[subprocess.Popen[str], int]:
    """Start the run; returns it and its sampler."""
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.energy.run_to_kill", str(folder), str(source.zero_ns), kind],
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
    )
    assert run.stdout is not None
    return run, int(run.stdout.readline())


def windows(folder: Path) -> list[tuple[int, int, int, float | None, str | None]]:
    """The windows that were closed; a torn last line is none."""
    lines = (folder / "windows").read_text().split("\n")[:-1]
    return [tuple(json.loads(line)) for line in lines]


def check_stream(folder: Path, source: ClockSource, kind: str) -> Any:
    """Every record is one that the counter showed; together they hold each joule once."""
    frame = read_stream(folder / "power")
    assert frame.attrs["bad_records"] == 0
    assert frame.attrs["torn_bytes"] < 40
    times_ns, raw = frame["t_mono_ns"].tolist(), frame["raw"].tolist()
    shown = [source.raw(t_ns) for t_ns in times_ns]
    if kind == "clock":
        assert raw == shown
    else:  # the file follows the clock, whenever its thread runs
        assert raw == sorted(raw)
        assert all(value <= limit + 7 for value, limit in zip(raw, shown, strict=True))
    assert times_ns == sorted(set(times_ns))
    known = frame["joules"].notna()
    counts = sum(
        after - before for after, before, is_known in zip(raw[1:], raw, known[1:], strict=False) if is_known
    )
    assert frame["joules"].sum() == pytest.approx(counts * 1e-6, rel=1e-9)
    return frame


def check_window(frame: Any, start_ns: int, end_ns: int, joules: float) -> None:
    """The joules are those between two readings at the window's edges."""
    times_ns, raw = frame["t_mono_ns"].tolist(), frame["raw"].tolist()
    first, last = bisect(times_ns, start_ns), bisect(times_ns, end_ns)
    # The edge's own reading is next to it; one that came by itself may lie between.
    near = [
        (raw[end] - raw[begin]) * 1e-6
        for begin in range(max(0, first - 2), first + 2)
        for end in range(last - 2, min(len(raw), last + 2))
    ]
    assert min(abs(joules - between) for between in near) < 1e-9


@pytest.mark.parametrize("kind", ["clock", "files"])
@pytest.mark.parametrize("seed", TIMES)
def test_a_run_that_is_killed_leaves_whole_records_and_no_sampler(
    tmp_path: Path, seed: int, kind: str
) -> None:
    source = ClockSource(time.monotonic_ns())
    run, sampler = start(tmp_path, source, kind)
    time.sleep(random.Random(seed).uniform(0.0, 0.5))
    killed_ns = time.monotonic_ns()
    run.kill()
    run.communicate()
    wait_for(lambda: not is_alive(sampler))
    frame = check_stream(tmp_path, source, kind)
    assert [flags for flags in frame["flags"] if flags] == [Flag.FIRST]
    counted = windows(tmp_path)
    assert [row[0] for row in counted] == list(range(len(counted))), (
        "the window that was open is in no record"
    )
    total_j = 0.0
    for _, start_ns, end_ns, joules, trouble in counted:
        assert end_ns <= killed_ns + 10**9
        assert trouble is None
        assert joules is not None
        check_window(frame, start_ns, end_ns, joules)
        total_j += joules
    assert total_j <= frame["joules"].sum() + 1e-9, "no window holds a joule of another"


@pytest.mark.parametrize("kind", ["clock", "files"])
@pytest.mark.parametrize("seed", TIMES)
def test_a_sampler_that_is_killed_leaves_whole_records_and_one_window_incomplete(
    tmp_path: Path, seed: int, kind: str
) -> None:
    source = ClockSource(time.monotonic_ns())
    run, sampler = start(tmp_path, source, kind)
    time.sleep(random.Random(seed).uniform(0.0, 0.5))
    os.kill(sampler, signal.SIGKILL)
    before = len(windows(tmp_path))
    wait_for(lambda: len(windows(tmp_path)) > before + 3)
    (tmp_path / "enough").touch()
    run.communicate(timeout=60)
    assert run.returncode == 0, "the run goes on without it"
    frame = check_stream(tmp_path, source, kind)
    assert [flags for flags in frame["flags"] if flags] == [Flag.FIRST, Flag.GAP]
    counted = windows(tmp_path)
    back_ns = frame["t_mono_ns"][frame["flags"] == int(Flag.GAP)].item()
    incomplete = [row[0] for row in counted if row[3] is None]
    # None where it was killed between two windows: the next one began with its successor.
    assert incomplete == [row[0] for row in counted if row[1] < back_ns <= row[2]]
    assert counted[-1][4] == "the sampler has died (killed by signal 9)"
    for _, start_ns, end_ns, joules, _ in counted:
        if joules is not None:
            check_window(frame, start_ns, end_ns, joules)
    known_j = sum(row[3] for row in counted if row[3] is not None)
    counted_j = (frame["raw"].max() - frame["raw"].min()) * 1e-6
    assert 0 < known_j <= counted_j + 1e-9, "no joule is counted twice"
