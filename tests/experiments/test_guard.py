"""What the guard makes of counters, on a folder laid out like /proc and /sys."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pynvml
import pytest

from energy.gpu_throttling import GpuThrottling
from experiments.guard import Guard
from tests.energy.nvml_library import Gpu, Nvml

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four processors; the trial is process 10, which started 11."""
    write(tmp_path)
    return tmp_path


def write(
    root: Path, busy: int = 0, idle: int = 0, stolen: int = 0, own: int = 0, child: int = 0, ended: int = 0
) -> None:
    """Ticks of all processors, of the trial, of its child, and of children that have ended."""
    line = f"{busy} 0 0 {idle} 0 0 0 {stolen} 0 0"
    lines = [f"cpu  {line}", *(f"cpu{number} {line}" for number in range(4)), "intr 1"]
    (root / "proc/10/task/10").mkdir(parents=True, exist_ok=True)
    (root / "proc/11/task/11").mkdir(parents=True, exist_ok=True)
    (root / "proc/stat").write_text("\n".join(lines))
    rest = "0 0 0 0 0 0 0 0"
    (root / "proc/10/stat").write_text(f"10 (a (b) c) S 1 10 10 0 -1 0 0 0 0 0 {own} 0 {ended} 0 {rest}")
    (root / "proc/11/stat").write_text(f"11 (sampler) S 10 10 10 0 -1 0 0 0 0 0 {child} 0 0 0 {rest}")
    (root / "proc/10/task/10/children").write_text("11 ")
    (root / "proc/11/task/11/children").write_text("")


def test_load_is_what_is_left_of_the_busy_time_without_the_trials_own(root: Path) -> None:
    guard = Guard(0.1, root, pid=10)
    begin = guard.read()
    write(root, busy=1000, own=300, child=200, ended=100, stolen=50)
    time.sleep(0.01)
    end = guard.read()
    load = guard.load(begin, end)
    assert load.foreign_cores * load.seconds == pytest.approx(400 * TICK_S)
    assert load.stolen_cores * load.seconds == pytest.approx(50 * TICK_S)
    assert load.foreign_cores_bound * load.seconds == pytest.approx(10 * TICK_S)
    assert load.disturbed is True


def test_a_window_without_other_load_is_not_disturbed_where_it_is_long_enough_to_tell(root: Path) -> None:
    guard = Guard(max_foreign_cores=1e3, root=root, pid=10)
    begin = guard.read()
    write(root, busy=300, own=300)
    time.sleep(0.01)
    assert guard.load(begin, guard.read()).disturbed is False
    strict = Guard(max_foreign_cores=0.0, root=root, pid=10)
    assert strict.load(begin, strict.read()).disturbed is None, "the ticks of a short window cannot tell"


def test_throttling_disturbs_whatever_the_load_is(root: Path) -> None:
    count = root / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    count.parent.mkdir(parents=True)
    count.write_text("3\n")
    guard = Guard(1e3, root, pid=10)
    begin = guard.read()
    count.write_text("5\n")
    time.sleep(0.01)
    load = guard.load(begin, guard.read())
    assert (load.throttles, load.disturbed) == (2, True)


def test_a_gpu_that_was_slowed_down_for_heat_disturbs_and_one_at_its_power_limit_does_not(root: Path) -> None:
    gpu = Gpu(slowed_ns={})
    guard = Guard(1e3, root, pid=10, gpus=GpuThrottling(Nvml(gpu), {}))
    begin = guard.read()
    gpu.slowed_ns = {pynvml.NVML_PERF_POLICY_POWER: 2_000_000_000}
    time.sleep(0.01)
    limited = guard.read()
    load = guard.load(begin, limited)
    assert (load.gpu_throttled_s, load.gpu_power_limited_s, load.disturbed) == (0.0, 2.0, False)
    gpu.slowed_ns = {pynvml.NVML_PERF_POLICY_THERMAL: 30_000_000}
    time.sleep(0.01)
    load = guard.load(limited, guard.read())
    assert (load.gpu_throttled_s, load.disturbed) == (0.03, True)
    assert load.words.endswith("GPUs were throttled for 0.03 s")


def test_frequency_is_the_mean_of_the_processors(root: Path) -> None:
    for cpu, khz in (("cpu0", 1_000_000), ("cpu1", 3_000_000)):
        path = root / "sys/devices/system/cpu" / cpu / "cpufreq/scaling_cur_freq"
        path.parent.mkdir(parents=True)
        path.write_text(f"{khz}\n")
    assert Guard(0.1, root, pid=10).read().frequency_mhz == 2000.0


def test_what_the_machine_does_not_show_is_none(root: Path) -> None:
    reading = Guard(0.1, root, pid=10).read()
    assert (reading.frequency_mhz, reading.throttles) == (None, None)


def test_a_process_that_keeps_a_core_busy_is_foreign_load_and_a_child_of_the_trial_is_not() -> None:
    """On this machine: a child that computes for 0.5 s of processor time, and one that sleeps meanwhile."""
    compute = "import time\nwhile time.process_time() < 0.5: pass"
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        guards = Guard(0.1), Guard(0.1, pid=sleeper.pid)
        before = [guard.read() for guard in guards]
        subprocess.run([sys.executable, "-c", compute], check=True)
        after = [guard.read() for guard in guards]
        sleeper.kill()
    parent_s, sleeper_s = (end.own_s - begin.own_s for begin, end in zip(before, after, strict=True))
    assert parent_s >= 0.45
    assert sleeper_s == 0.0
    assert after[1].busy_s - before[1].busy_s >= 0.4
