import dataclasses
import errno
import math
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from energy import (
    Channel,
    EnergySession,
    Flag,
    PowerModel,
    PowerStream,
    RaplSource,
    SourceUnavailableError,
    StreamError,
    WorkerPower,
    read_stream,
)
from tests.energy.powercap import PACKAGE_RANGE_UJ, laptop, set_uj
from tests.energy.sources import CORE, DRAM, GPU, PACKAGE, HandSource

CPU_WORKER = WorkerPower(idle_w=1.0, polling_w=4.0, busy_w=10.0)
GPU_WORKER = WorkerPower(idle_w=20.0, polling_w=25.0, busy_w=200.0, channel="gpu")
NODE = PowerModel(base_w=50.0, workers=(GPU_WORKER, CPU_WORKER), stays_awake_s=math.inf)
SELDOM_HZ = 0.1  # the thread's own readings stay out of a test that takes its own


def cpu_and_gpu_busy(seconds: float) -> np.ndarray:
    fields = [("worker", "i4"), ("start_s", "f8"), ("end_s", "f8"), ("codelet", "U16")]
    return np.array([(0, 0.0, seconds, "conv2d"), (1, 0.0, seconds, "conv2d")], dtype=fields)


def test_the_total_is_package_and_dram_and_never_what_overlaps_them(tmp_path: Path) -> None:
    with EnergySession([RaplSource(laptop(tmp_path))], rate_hz=SELDOM_HZ) as session:
        with session.window("epoch", 3) as window:
            set_uj(tmp_path, "intel-rapl:0", 3_000_000)
            set_uj(tmp_path, "intel-rapl:0:0", 2_600_000)
            set_uj(tmp_path, "intel-rapl:0:2", 1_000_000)
            set_uj(tmp_path, "intel-rapl:1", 12_000_000)
            set_uj(tmp_path, "intel-rapl-mmio:0", 3_000_000)
            time.sleep(0.02)
        energy = window.energy
    assert {name: channel.gross_j for name, channel in energy.channels.items()} == pytest.approx(
        {
            "rapl:package-0": 2.0,
            "rapl:package-0/core": 2.0,
            "rapl:package-0/uncore": 0.0,
            "rapl:package-0/dram": 0.5,
            "rapl:psys": 3.0,
            "rapl:mmio/package-0": 2.0,
        }
    )
    assert energy.total_j == pytest.approx(2.5)
    assert (energy.name, energy.index, energy.quality, energy.qualities) == (
        "epoch",
        3,
        "measured",
        ("measured",),
    )
    assert energy.resolvable
    assert 0.02 <= energy.seconds < 1.0
    assert energy.total_bound_j is not None
    assert 0 < energy.total_bound_j <= 0.001 * 2.5 / 0.02 + 2e-6


def test_a_wrap_of_one_counter_inside_a_window_is_counted_right(tmp_path: Path) -> None:
    laptop(tmp_path, package_uj=PACKAGE_RANGE_UJ - 999_999)
    with EnergySession([RaplSource(tmp_path)], rate_hz=SELDOM_HZ) as session:
        window = session.open_window("epoch")
        set_uj(tmp_path, "intel-rapl:0", 500_000)
        set_uj(tmp_path, "intel-rapl:0:2", 700_000)
        energy = window.close()
    assert energy.channels["rapl:package-0"].gross_j == pytest.approx(1.5)
    assert energy.channels["rapl:package-0/dram"].gross_j == pytest.approx(0.2)


def test_the_sampler_sees_every_wrap_between_the_edges_of_a_window() -> None:
    wrap = 10_000_000_000
    channel = Channel("rapl:package-0", "package", True, 1e-6, wrap, 0.001)
    source = HandSource("rapl", {channel: 0})
    with EnergySession([source], rate_hz=500) as session:
        window = session.open_window("epoch")
        for step in range(1, 10):
            source.raw[channel] = step * (wrap // 3) % wrap
            seen = source.reads
            while source.reads < seen + 2:
                time.sleep(0.001)
        energy = window.close()
    assert energy.total_j == pytest.approx(9 * (wrap // 3) * 1e-6)


def test_a_reading_lost_inside_a_window_is_a_gap_not_a_zero() -> None:
    source = HandSource("rapl", {PACKAGE: 0, DRAM: 0})
    with EnergySession([source], rate_hz=SELDOM_HZ) as session:
        window = session.open_window("epoch")
        source.raw = {PACKAGE: None, DRAM: 10}
        session.snapshot()
        source.raw = {PACKAGE: 5_000_000, DRAM: 2_000_000}
        energy = window.close()
        whole = session.open_window("epoch", 1)
        source.raw = {PACKAGE: 6_000_000, DRAM: 2_000_000}
        after = whole.close()
    package = energy.channels["rapl:package-0"]
    assert (package.gross_j, package.net_j, package.bound_j, package.complete) == (None, None, None, False)
    assert energy.channels["rapl:package-0/dram"].gross_j == pytest.approx(2.0)
    assert energy.total_j is None
    assert after.total_j == pytest.approx(1.0)


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_reading_lost_at_the_edge_of_a_window_is_a_gap(at_the_end: bool) -> None:
    source = HandSource("rapl", {PACKAGE: 0})
    with EnergySession([source], rate_hz=SELDOM_HZ) as session:
        source.raw = {PACKAGE: 0 if at_the_end else None}
        window = session.open_window("epoch")
        source.raw = {PACKAGE: None if at_the_end else 5_000_000}
        energy = window.close()
    assert energy.total_j is None
    assert not energy.channels["rapl:package-0"].complete


def test_a_value_outside_the_counters_range_is_a_gap() -> None:
    source = HandSource("rapl", {PACKAGE: 0})
    with EnergySession([source], rate_hz=SELDOM_HZ) as session:
        window = session.open_window("epoch")
        source.raw = {PACKAGE: 10**15}
        assert window.close().total_j is None


def test_a_gap_outside_the_total_leaves_the_total_whole() -> None:
    source = HandSource("rapl", {PACKAGE: 0, CORE: 0})
    with EnergySession([source], rate_hz=SELDOM_HZ) as session:
        window = session.open_window("epoch")
        source.raw = {PACKAGE: 1_000_000, CORE: None}
        energy = window.close()
    assert energy.total_j == pytest.approx(1.0)
    assert not energy.channels["rapl:package-0/core"].complete


@pytest.mark.parametrize(("period_s", "resolvable"), [(0.001, True), (100.0, False)])
def test_a_window_below_three_periods_of_a_counter_is_not_resolvable(
    period_s: float, resolvable: bool
) -> None:
    channel = dataclasses.replace(GPU, period_s=period_s)
    source = HandSource("nvml", {channel: 0})
    with EnergySession([source], rate_hz=SELDOM_HZ) as session, session.window("epoch") as window:
        time.sleep(0.02)
        source.raw = {channel: 5}
    assert window.energy.resolvable is resolvable


def test_windows_nest_and_the_outer_one_holds_the_inner_ones() -> None:
    source = HandSource("rapl", {PACKAGE: 0})
    totals = []
    with EnergySession([source], rate_hz=SELDOM_HZ) as session, session.window("run") as run:
        for index in range(3):
            with session.window("epoch", index) as epoch:
                source.raw = {PACKAGE: (index + 1) * 2_000_000}
            totals.append(epoch.energy.total_j)
        source.raw = {PACKAGE: 7_000_000}
    assert totals == pytest.approx([2.0, 2.0, 2.0])
    assert run.energy.total_j == pytest.approx(7.0)


def test_a_stopped_window_does_not_count_what_comes_before_it_is_closed() -> None:
    source = HandSource("rapl", {PACKAGE: 0})
    with EnergySession([source], rate_hz=SELDOM_HZ) as session:
        window = session.open_window("epoch")
        source.raw = {PACKAGE: 1_000_000}
        window.stop()
        source.raw = {PACKAGE: 9_000_000}
        assert window.close().total_j == pytest.approx(1.0)


def test_a_package_counter_takes_the_place_of_base_and_cpu_and_only_the_gpu_is_estimated() -> None:
    source = HandSource("rapl", {PACKAGE: 0})
    with EnergySession([source], NODE, rate_hz=SELDOM_HZ) as session:
        assert session.model_channels == ("model:gpu",)
        window = session.open_window("epoch")
        source.raw = {PACKAGE: 30_000_000}
        energy = window.close(cpu_and_gpu_busy(2.0), 0.0, 2.0)
    assert set(energy.channels) == {"rapl:package-0", "model:gpu"}
    assert energy.total_j == pytest.approx(30.0 + 400.0)
    assert energy.quality == "estimated"
    assert energy.qualities == ("measured", "estimated")
    assert energy.total_bound_j is None


def test_counters_of_all_components_leave_nothing_to_the_model() -> None:
    source = HandSource("all", {PACKAGE: 0, GPU: 0})
    with EnergySession([source], NODE, rate_hz=SELDOM_HZ) as session:
        window = session.open_window("epoch")
        source.raw = {PACKAGE: 30_000_000, GPU: 5_000}
        energy = window.close()
    assert energy.total_j == pytest.approx(35.0)
    assert energy.quality == "measured"


def test_a_gpu_counter_leaves_base_and_cpu_to_the_model() -> None:
    source = HandSource("nvml", {GPU: 0})
    with EnergySession([source], NODE, rate_hz=SELDOM_HZ) as session:
        window = session.open_window("epoch")
        source.raw = {GPU: 7_000}
        energy = window.close(cpu_and_gpu_busy(2.0), 0.0, 2.0)
    assert {name: channel.gross_j for name, channel in energy.channels.items()} == pytest.approx(
        {"nvml:gpu-0": 7.0, "model:base": 100.0, "model:cpu": 20.0}
    )


def test_a_counter_outside_the_total_covers_nothing() -> None:
    copy = dataclasses.replace(PACKAGE, name="rapl:mmio/package-0", in_total=False)
    with EnergySession([HandSource("rapl", {copy: 0})], NODE, rate_hz=SELDOM_HZ) as session:
        assert session.model_channels == ("model:base", "model:gpu", "model:cpu")


def test_joules_by_activity_alone_are_estimated_and_know_their_net() -> None:
    with EnergySession(power_model=NODE) as session:
        energy = session.open_window("epoch").close(cpu_and_gpu_busy(2.0), 0.0, 4.0)
    # Two seconds busy, two seconds idle with the CPU worker polling.
    assert energy.total_j == pytest.approx(50 * 4 + (200 * 2 + 20 * 2) + (10 * 2 + 4 * 2))
    assert energy.total_net_j == pytest.approx(180 * 2 + 9 * 2 + 3 * 2)
    assert (energy.quality, energy.seconds, energy.resolvable) == ("estimated", 4.0, True)


def test_simulated_activity_gives_simulated_joules_in_simulated_seconds() -> None:
    with EnergySession(power_model=NODE, activity_quality="simulated") as session:
        window = session.open_window("epoch")
        window.activity(cpu_and_gpu_busy(1000.0), 0.0, 1000.0)
        energy = window.close()
    assert (energy.quality, energy.seconds) == ("simulated", 1000.0)
    assert energy.total_j == pytest.approx(260_000.0)


def test_a_simulated_run_with_counters_is_refused() -> None:
    with pytest.raises(ValueError, match="a simulated run has no counters"):
        EnergySession([HandSource("rapl", {PACKAGE: 0})], NODE, activity_quality="simulated")


def test_the_model_without_tasks_is_an_error_that_says_what_it_needs() -> None:
    with EnergySession(power_model=NODE) as session:
        window = session.open_window("epoch")
        with pytest.raises(ValueError, match=r"window 'epoch'.*close\(tasks="):
            window.close()


def test_nothing_to_count_with_gives_no_joules_and_not_zero() -> None:
    with EnergySession() as session:
        energy = session.open_window("epoch").close()
    assert (energy.total_j, energy.total_net_j, energy.quality, energy.resolvable) == (
        None,
        None,
        None,
        False,
    )


def test_net_joules_are_missing_without_a_baseline() -> None:
    source = HandSource("rapl", {PACKAGE: 0})
    with EnergySession([source], rate_hz=SELDOM_HZ) as session:
        window = session.open_window("epoch")
        source.raw = {PACKAGE: 5_000_000}
        energy = window.close()
    assert (energy.total_j, energy.total_net_j) == (pytest.approx(5.0), None)
    assert energy.channels["rapl:package-0"].idle_j is None


def seven_watts(t_ns: int) -> int:
    return t_ns * 7 // 1000 % 262_143_328_851


def test_net_joules_take_off_the_idle_watts_of_the_baseline() -> None:
    source = HandSource("rapl", {PACKAGE: 0})
    with EnergySession([source], rate_hz=SELDOM_HZ, idle_w={"rapl:package-0": 3.0}) as session:
        source.raw = {PACKAGE: seven_watts}
        with session.window("epoch") as window:
            time.sleep(0.05)
    channel = window.energy.channels["rapl:package-0"]
    assert channel.gross_j is not None
    assert channel.gross_j >= 7 * 0.05
    assert channel.idle_j == pytest.approx(channel.gross_j * 3 / 7, rel=1e-3)
    assert window.energy.total_net_j == pytest.approx(channel.gross_j * 4 / 7, rel=1e-3)


def test_the_idle_baseline_is_the_mean_power_while_nothing_runs() -> None:
    source = HandSource("rapl", {PACKAGE: seven_watts, CORE: None})
    with EnergySession([source], rate_hz=SELDOM_HZ) as session:
        idle = session.measure_idle(0.05)
        assert list(idle) == ["rapl:package-0"]
        assert idle["rapl:package-0"].watts == pytest.approx(7.0, rel=1e-3)
        # One period of 1 ms in at least 50 ms, at 7 W, and a count.
        assert 0 < idle["rapl:package-0"].bound_w <= 1.01 * 7.0 * 0.001 / 0.05
        assert session.idle_w == {}


def test_a_window_around_others_has_their_tasks_and_sleep_in_between() -> None:
    with EnergySession(power_model=NODE) as session:
        run = session.open_window("run")
        for start_s in (1.0, 5.0):
            tasks = cpu_and_gpu_busy(2.0)
            tasks["start_s"] += start_s
            tasks["end_s"] += start_s
            session.open_window("epoch").close(tasks, start_s, start_s + 2.0)
        energy = run.close(start_s=0.0, end_s=10.0)
    # 10 s of base and sleep, and twice two busy seconds above it.
    assert energy.total_j == pytest.approx(10 * (50 + 20 + 1) + 2 * 2 * (180 + 9))
    assert energy.total_net_j == pytest.approx(2 * 2 * (180 + 9))
    assert energy.seconds == 10.0


def test_windows_inside_one_another_count_once_in_the_one_around_them_all() -> None:
    with EnergySession(power_model=NODE) as session:
        run = session.open_window("run")
        epoch = session.open_window("epoch")
        half = cpu_and_gpu_busy(1.0)
        session.open_window("batches").close(half, 0.0, 1.0)
        inner = epoch.close(cpu_and_gpu_busy(2.0), 0.0, 2.0)
        outer = run.close(start_s=0.0, end_s=2.0)
    assert inner.total_j == pytest.approx(2 * 260)
    assert outer.total_j == pytest.approx(inner.total_j)


def test_without_counters_there_is_no_baseline_to_wait_for() -> None:
    with EnergySession(power_model=NODE) as session:
        began = time.monotonic()
        assert session.measure_idle(60.0) == {}
        assert time.monotonic() - began < 30.0


def test_a_baseline_too_short_for_a_counter_is_refused() -> None:
    with EnergySession([HandSource("nvml", {GPU: 0})], rate_hz=SELDOM_HZ) as session:
        for seconds in (0.2, 0.0, -1.0, math.nan):
            with pytest.raises(ValueError, match="too short"):
                session.measure_idle(seconds)


def test_a_rate_at_which_a_wrap_could_be_lost_is_refused_with_one_that_works() -> None:
    small = Channel("rapl:package-0", "package", True, 1e-6, 1_000_000_000, 0.001)
    source = HandSource("rapl", {small: 0})
    with pytest.raises(ValueError, match="can wrap within 1 s, choose at least 2"):
        EnergySession([source], rate_hz=1.0).open()
    assert source.opened == 0
    with EnergySession([source], rate_hz=2.0):
        pass


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="rate_hz"):
        EnergySession(rate_hz=rate_hz)


def test_a_source_that_is_not_there_leaves_no_other_open() -> None:
    there, missing = HandSource("rapl", {PACKAGE: 0}), HandSource("nvml", {GPU: 0}, available=False)
    with pytest.raises(SourceUnavailableError, match="plug it in"):
        EnergySession([there, missing]).open()
    assert there.opened == 0


def test_a_session_that_is_not_open_counts_nothing() -> None:
    session = EnergySession([HandSource("rapl", {PACKAGE: 0})])
    with pytest.raises(RuntimeError, match="not open"):
        session.open_window("epoch")
    with session:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        session.open_window("epoch")


def test_a_session_ends_its_thread_and_closes_its_sources() -> None:
    source = HandSource("rapl", {PACKAGE: 0})
    with EnergySession([source], rate_hz=100):
        assert "energy-sampler" in {thread.name for thread in threading.enumerate()}
    assert "energy-sampler" not in {thread.name for thread in threading.enumerate()}
    assert source.opened == 0


def test_live_power_is_that_of_the_last_second_and_knows_its_age() -> None:
    source = HandSource("rapl", {PACKAGE: 0, DRAM: 0})
    with EnergySession([source], rate_hz=SELDOM_HZ) as session:
        time.sleep(0.1)
        source.raw = {PACKAGE: 1_000_000, DRAM: None}
        session.snapshot()
        live = session.live()
    assert list(live) == ["rapl:package-0"]
    assert 0.0 <= live["rapl:package-0"].age_s < 5.0
    assert 0.0 < live["rapl:package-0"].watts <= 10.0


def test_whatever_a_source_raises_is_a_gap_that_is_told_and_sampling_goes_on() -> None:
    source = HandSource("rapl", {PACKAGE: 0})
    with EnergySession([source], rate_hz=200) as session:
        assert session.trouble is None
        window = session.open_window("epoch")
        source.error = OSError("the bus is on fire")
        seen = source.reads
        while source.reads == seen:
            time.sleep(0.001)
        source.error = None
        energy = window.close()
        assert (energy.total_j, energy.channels["rapl:package-0"].complete) == (None, False)
        assert session.trouble is not None
        assert "rapl:package-0 could not be read" in session.trouble
        assert "the bus is on fire" in session.trouble
        window = session.open_window("epoch")
        source.raw = {PACKAGE: 2_000_000}
        assert window.close().total_j == pytest.approx(2.0)


def test_permission_lost_in_the_middle_of_a_run_is_a_gap_that_is_told(tmp_path: Path) -> None:
    allowed = True

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        if not allowed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return os.pread(descriptor, count, offset)

    with EnergySession([RaplSource(laptop(tmp_path), pread=pread)], rate_hz=SELDOM_HZ) as session:
        window = session.open_window("epoch")
        allowed = False
        energy = window.close()
        assert energy.total_j is None
        assert "rapl:package-0 could not be read (1x; the first time: Permission denied)" in str(
            session.trouble
        )
        allowed = True
        window = session.open_window("epoch", 1)
        set_uj(tmp_path, "intel-rapl:0", 2_000_000)
        assert window.close().total_j == pytest.approx(1.0)


def test_a_step_of_the_wall_clock_changes_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    source = HandSource("rapl", {PACKAGE: seven_watts})
    with EnergySession([source], rate_hz=SELDOM_HZ) as session, session.window("epoch") as window:
        time.sleep(0.02)
    assert 0.02 <= window.energy.seconds < 5.0
    assert window.energy.total_j == pytest.approx(7 * window.energy.seconds, rel=0.2)


def test_every_reading_and_every_gap_goes_to_the_stream(tmp_path: Path) -> None:
    source = HandSource("rapl", {PACKAGE: 100, CORE: 5})
    stream = PowerStream(tmp_path / "power")
    with EnergySession([source], stream=stream, rate_hz=SELDOM_HZ) as session:
        source.raw = {PACKAGE: None, CORE: 6}
        session.snapshot()
        source.raw = {PACKAGE: 300, CORE: 7}
        session.snapshot()
        source.raw = {PACKAGE: 500, CORE: 8}
        session.snapshot()
    frame = read_stream(tmp_path / "power")
    package = frame[frame["channel"] == "rapl:package-0"]
    assert package["raw"].isna().tolist() == [False, True, False, False]
    assert package["raw"].dropna().tolist() == [100, 300, 500]
    assert [Flag(flags) for flags in package["flags"]] == [Flag.FIRST, Flag.GAP, Flag.GAP, Flag.OK]
    assert package["joules"].tolist()[3] == pytest.approx(200e-6)
    assert frame.attrs["channels"]["rapl:package-0"]["quality"] == "measured"
    assert frame.attrs["channels"]["rapl:package-0/core"]["in_total"] is False


def test_the_stream_holds_the_watts_of_the_model_once_even_where_windows_nest(tmp_path: Path) -> None:
    stream = PowerStream(tmp_path / "power")
    tasks = cpu_and_gpu_busy(2.0)
    with EnergySession(power_model=NODE, activity_quality="simulated", stream=stream, rate_hz=4.0) as session:
        run = session.open_window("run")
        for index, (start_s, end_s) in enumerate([(0.0, 1.5), (1.5, 3.0)]):
            session.open_window("epoch", index).close(tasks, start_s, end_s)
        energy = run.close(tasks, 0.0, 4.0)
    frame = read_stream(tmp_path / "power")
    assert set(frame["flags"]) == {int(Flag.BY_MODEL)}
    assert frame["raw"].isna().all()
    assert frame["joules"].sum() == pytest.approx(energy.total_j)
    cpu = frame[frame["channel"] == "model:cpu"]
    assert cpu["t_mono_ns"].tolist() == [250_000_000 * bin_ for bin_ in range(1, 17)]
    assert cpu["watts"].tolist() == pytest.approx([10.0] * 8 + [4.0] * 8)


def test_a_stream_that_cannot_be_made_stops_the_session_before_it_starts(tmp_path: Path) -> None:
    source = HandSource("rapl", {PACKAGE: 0})
    with pytest.raises(StreamError, match="No such file"):
        EnergySession([source], stream=PowerStream(tmp_path / "absent" / "power")).open()
    assert source.opened == 0


def test_a_window_around_a_block_that_fails_lets_the_error_through() -> None:
    with EnergySession(power_model=NODE) as session:
        with pytest.raises(KeyError, match="wrong"), session.window("epoch") as window:
            raise KeyError("wrong")
        with pytest.raises(RuntimeError, match="not closed"):
            _ = window.energy
