"""The sampler in a process of its own: what it reads, and what becomes of a run when it fails."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from energy import EnergySession, Flag, PowerStream, RaplSource, SourceUnavailableError, read_stream
from energy.live import LivePage
from energy.process_sampler import ProcessSampler
from energy.sampler import SamplerError
from tests.energy.powercap import laptop, set_uj
from tests.energy.sources import GPU, PACKAGE, ClockSource, HandSource, StuckSource

SELDOM_HZ = 0.1


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.01)


def pid_of(session: EnergySession) -> int:
    assert isinstance(session._sampler, ProcessSampler)
    assert session._sampler.pid is not None
    return session._sampler.pid


def test_another_process_reads_the_counters_and_writes_the_stream(tmp_path: Path) -> None:
    tree = laptop(tmp_path / "powercap")
    stream = PowerStream(tmp_path / "power")
    with EnergySession([RaplSource(tree)], stream=stream, rate_hz=SELDOM_HZ) as session:
        child = pid_of(session)
        assert child != os.getpid()
        assert any("energy_uj" in os.readlink(path) for path in Path(f"/proc/{child}/fd").iterdir())
        assert not any("energy_uj" in os.readlink(path) for path in Path("/proc/self/fd").glob("[0-9]"))
        with session.window("epoch") as window:
            set_uj(tree, "intel-rapl:0", 3_000_000)
            set_uj(tree, "intel-rapl:0:2", 1_000_000)
        assert window.energy.total_j == pytest.approx(2.5)
        assert session.trouble is None
    assert not is_alive(child)
    frame = read_stream(tmp_path / "power")
    package = frame[frame["channel"] == "rapl:package-0"]
    assert package["raw"].tolist() == [1_000_000, 1_000_000, 1_000_000, 3_000_000]
    assert [Flag(flags) for flags in package["flags"]] == [Flag.FIRST, Flag.OK, Flag.OK, Flag.OK]
    assert len(frame.attrs["clocks"]) == 3, "at the start, and where each process closed it"


def test_what_it_reads_by_itself_is_in_the_stream_at_its_rate(tmp_path: Path) -> None:
    stream = PowerStream(tmp_path / "power")
    source = ClockSource(time.monotonic_ns())
    with EnergySession([source], stream=stream, rate_hz=200):
        time.sleep(0.5)
    frame = read_stream(tmp_path / "power")
    assert 20 <= len(frame) <= 110
    assert frame["raw"].tolist() == [source.raw(t_ns) for t_ns in frame["t_mono_ns"]]
    assert frame["watts"].dropna().to_numpy() == pytest.approx(7.0, rel=0.01)


def test_each_source_is_read_at_its_own_rate(tmp_path: Path) -> None:
    stream = PowerStream(tmp_path / "power")
    often = ClockSource(0)
    seldom = ClockSource(0, channel=GPU, name="seldom")
    with EnergySession([often, seldom], stream=stream, rate_hz={"clock": 200, "default": SELDOM_HZ}):
        time.sleep(0.3)
    counts = read_stream(tmp_path / "power")["channel"].value_counts()
    assert counts[GPU.name] == 2, "as the session opens, and no more"
    assert counts[PACKAGE.name] > 10


def test_a_source_without_a_rate_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="no rate for clock: add clock or default to rapl"):
        EnergySession([ClockSource(0)], rate_hz={"rapl": 100})


@pytest.mark.parametrize("rate_hz", [{}, {"rapl": 0.0}, {"default": float("nan")}])
def test_rates_that_are_none_are_refused(rate_hz: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="rate_hz"):
        EnergySession(rate_hz=rate_hz)


def test_a_source_that_is_not_there_stops_the_session_with_its_own_error() -> None:
    with pytest.raises(SourceUnavailableError, match="wind it up") as caught:
        EnergySession([ClockSource(0, opens=False)]).open()
    assert caught.value.source == "clock"


def test_a_source_that_cannot_be_sent_is_an_error_that_says_so() -> None:
    source = ClockSource(0)
    source.watts = lambda: 7
    with pytest.raises(SamplerError, match="cannot be sent"):
        EnergySession([source]).open()


def test_a_source_of_this_process_is_read_in_this_process() -> None:
    with EnergySession([HandSource("rapl", {PACKAGE: 0})]) as session:
        assert not isinstance(session._sampler, ProcessSampler)


def test_a_run_without_counters_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    with EnergySession() as session:
        assert session.live() == {}


def test_live_watts_are_in_memory_with_their_age_for_policies_too() -> None:
    page = LivePage()
    page.tie_clock(1000.0)
    with EnergySession([ClockSource(time.monotonic_ns())], rate_hz=50, page=page) as session:
        wait_for(lambda: "rapl:package-0" in session.live())
        time.sleep(0.5)
        stamp_s, watts = page.array
        (power,) = session.live().values()
        assert power.watts == pytest.approx(7.0, rel=0.01)
        assert watts == pytest.approx(7.0, rel=0.01)
        assert 0 <= power.age_s < 3
        assert 0 <= time.monotonic() + 1000.0 - stamp_s < 3
    assert np.isnan(page.array).all(), "nobody reads the counters any more"
    page.close()


def test_a_sampler_that_is_killed_costs_the_windows_that_are_open_and_no_other(tmp_path: Path) -> None:
    stream = PowerStream(tmp_path / "power")
    source = ClockSource(time.monotonic_ns())
    with EnergySession([source], stream=stream, rate_hz=100) as session:
        with session.window("run") as run:
            with session.window("epoch", 1) as before:
                time.sleep(0.05)
            with session.window("epoch", 2) as during:
                time.sleep(0.05)
                os.kill(pid_of(session), signal.SIGKILL)
                wait_for(lambda: session._sampler._process.poll() is not None)
            with session.window("epoch", 3) as after:
                time.sleep(0.05)
        trouble = session.trouble
    assert trouble == "the sampler has died (killed by signal 9)"
    assert before.energy.total_j == pytest.approx(7 * before.energy.seconds, rel=0.2)
    assert after.energy.total_j == pytest.approx(7 * after.energy.seconds, rel=0.2)
    for window in (during, run):
        assert (window.energy.total_j, window.energy.channels["rapl:package-0"].complete) == (None, False)
    frame = read_stream(tmp_path / "power")
    assert (frame.attrs["bad_records"], frame.attrs["torn_bytes"]) == (0, 0)
    assert [flags for flags in frame["flags"] if flags] == [Flag.FIRST, Flag.GAP]
    assert frame["t_mono_ns"].is_monotonic_increasing


def test_after_three_deaths_nothing_is_read_and_the_run_goes_on() -> None:
    with EnergySession([ClockSource(time.monotonic_ns())], rate_hz=SELDOM_HZ) as session:
        for _ in range(3):
            os.kill(pid_of(session), signal.SIGKILL)
            session.snapshot()
        assert session._sampler.pid is None
        with session.window("epoch") as window:
            pass
        assert window.energy.total_j is None
        assert session.trouble is not None
        assert session.trouble.endswith("nothing is read since")
        assert session.live() == {}


def test_a_sampler_that_hangs_is_killed_and_its_record_broken() -> None:
    page = LivePage()
    sampler = ProcessSampler([StuckSource()], SELDOM_HZ, None, page, answer_limit_s=0.5)
    sampler.open()
    sampler.start()
    child = sampler.pid
    snapshot = sampler.sample()
    assert snapshot.marks[PACKAGE.name].breaks == 1
    assert sampler.trouble == "the sampler did not answer within 0.5 s"
    assert child is not None
    assert sampler.pid != child
    assert not is_alive(child)
    sampler.stop()
    page.close()


def test_a_domain_that_vanishes_is_a_gap_that_is_told(tmp_path: Path) -> None:
    tree = laptop(tmp_path / "powercap")
    with EnergySession([RaplSource(tree)], rate_hz=SELDOM_HZ) as session:
        with session.window("epoch") as window:
            set_uj(tree, "intel-rapl:0:2", "")
        assert window.energy.total_j is None
        assert window.energy.channels["rapl:package-0"].complete
        assert not window.energy.channels["rapl:package-0/dram"].complete
        assert "rapl:package-0/dram could not be read (1x; the first time: read b" in str(session.trouble)


def test_a_sampler_ends_with_its_run_and_loses_nothing(tmp_path: Path) -> None:
    zero_ns = time.monotonic_ns()
    program = f"""
import os, signal, time
from pathlib import Path
from energy import EnergySession, PowerStream
from tests.energy.sources import ClockSource
session = EnergySession([ClockSource({zero_ns})], stream=PowerStream(Path({str(tmp_path / "power")!r})), rate_hz=100)
session.open()
print(session._sampler.pid, flush=True)
session.snapshot()
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=os.getcwd(), stdout=subprocess.PIPE, text=True
    )
    assert ended.returncode == -9
    wait_for(lambda: not is_alive(int(ended.stdout)))
    frame = read_stream(tmp_path / "power")
    assert (frame.attrs["bad_records"], frame.attrs["torn_bytes"]) == (0, 0)
    assert len(frame) >= 3
    assert frame["raw"].tolist() == [ClockSource(zero_ns).raw(t_ns) for t_ns in frame["t_mono_ns"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_are_the_runs_to_answer(number: signal.Signals) -> None:
    with EnergySession([ClockSource(time.monotonic_ns())], rate_hz=SELDOM_HZ) as session:
        os.kill(pid_of(session), number)
        with session.window("epoch") as window:
            time.sleep(0.02)
        assert window.energy.total_j is not None
        assert session.trouble is None


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process, and of those that it starts, grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_the_stream_ends_and_windows_go_on(tmp_path: Path) -> None:
    session = EnergySession(
        [ClockSource(time.monotonic_ns())], stream=PowerStream(tmp_path / "power"), rate_hz=100
    )
    with file_size_limit(1 << 14):
        session.open()
    try:
        wait_for(lambda: session.snapshot() is not None and session.trouble is not None)
        with session.window("epoch") as window:
            time.sleep(0.05)
        assert window.energy.total_j == pytest.approx(7 * window.energy.seconds, rel=0.2)
        assert "power cannot be written: File too large, so that it ends there" in str(session.trouble)
    finally:
        session.close()
    frame = read_stream(tmp_path / "power")
    source_zero = frame["t_mono_ns"][0] * 7 // 1000 - frame["raw"][0]
    assert all(
        abs(t_ns * 7 // 1000 - raw - source_zero) <= 1
        for t_ns, raw in zip(frame["t_mono_ns"], frame["raw"], strict=True)
    )
    assert frame.attrs["bad_records"] == 0
    assert len(frame) > 100


def test_parts_that_share_their_edges_add_up_to_the_whole() -> None:
    source = ClockSource(time.monotonic_ns())
    with EnergySession([source], rate_hz=100) as session:
        edges = []
        for _ in range(5):
            edges.append(session.snapshot())
            time.sleep(0.01)
        parts = [
            session.count("epoch", index, *pair, None).total_j for index, pair in enumerate(pairwise(edges))
        ]
        whole = session.count("run", 0, edges[0], edges[-1], None).total_j
    assert None not in parts
    assert sum(part for part in parts if part is not None) == pytest.approx(whole, rel=1e-12)


def test_windows_inside_windows_lie_inside_them_and_leave_only_what_is_between() -> None:
    with EnergySession([ClockSource(time.monotonic_ns())], rate_hz=100) as session:
        with session.window("run") as run:
            epochs = []
            for epoch in range(2):
                with session.window("epoch", epoch) as outer:
                    with session.window("batches 0 to 9", epoch) as inner:
                        time.sleep(0.02)
                    with session.window("my own", epoch) as own:
                        time.sleep(0.01)
                epochs.append(outer.energy)
                assert inner.energy.total_j + own.energy.total_j <= outer.energy.total_j
        assert sum(epoch.total_j for epoch in epochs) <= run.energy.total_j
        rest_s = run.energy.seconds - sum(epoch.seconds for epoch in epochs)
        rest_j = run.energy.total_j - sum(epoch.total_j for epoch in epochs)
        assert rest_j == pytest.approx(7 * rest_s, abs=7 * 0.05)
