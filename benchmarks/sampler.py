"""What the sampler costs, how late its readings are, and what one reading costs beside other readers.

The tree is a folder laid out like /sys/class/powercap: a package with core, uncore and dram, psys, and the mmio copy.
Both loops read it, the native one and that in Python. A process whose native loop reads nothing shows how much of the
cost is the machine's own for waking up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measuring
from energy import LivePage, PowerStream, RaplSource, read_stream
from energy.polling import MOST_HELD, LiveWatts, PolledSource
from energy.process_sampler import ProcessSampler
from energy.sampling_process import take_precedence
from energy.source import RawFiles
from energy.ticks import REMEDY, Loop, NativeTicks, native_loop
from energy.timer import PeriodicTimer

RATES_HZ = (10, 100, 1000)
LOOPS: tuple[Loop, ...] = ("native", "python")
"""The first is what a run takes."""
TARGETS_PERCENT = {100: 1.0, 1000: 4.0}
LATEST_P99_MS = 5.0
PEERS = ("pyRAPL", "CodeCarbon", "Zeus")
INSTALL = "python -m pip install pyRAPL==0.2.3.1 codecarbon zeus"
_MEMORY = (Path("/dev/shm"),)
BATCH = 20
"""Readings between two that are counted, written and shown, as at 100 Hz."""


def make_tree(root: Path) -> Path:
    """Six counters in nested zones, as in /sys/devices/virtual/powercap."""
    zones = {
        "intel-rapl/intel-rapl:0": "package-0",
        "intel-rapl/intel-rapl:0/intel-rapl:0:0": "core",
        "intel-rapl/intel-rapl:0/intel-rapl:0:1": "uncore",
        "intel-rapl/intel-rapl:0/intel-rapl:0:2": "dram",
        "intel-rapl/intel-rapl:1": "psys",
        "intel-rapl-mmio/intel-rapl-mmio:0": "package-0",
    }
    for number, (zone, name) in enumerate(zones.items()):
        folder = root / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text("262143328850\n")
        # Far apart: CodeCarbon takes counters that are close to each other for one.
        (folder / "energy_uj").write_text(f"{(number + 1) * 10**9}\n")
    return root


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep so many cores busy meanwhile."""
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def cpu_s_of(pid: int) -> float:
    """Processor time of all threads of a process (proc(5), /proc/PID/schedstat)."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) * 1e-9


def sampling_case(tree: Path, rate_hz: int, seconds: float, busy: int, loop: Loop) -> measuring.Case:
    """The sampler's process at one rate, with so many busy cores."""

    def run() -> Mapping[str, float]:
        with tempfile.TemporaryDirectory() as folder, busy_cores(busy):
            stream, page = PowerStream(Path(folder, "power")), LivePage()
            sampler = ProcessSampler([RaplSource(tree)], rate_hz, stream, page, loop=loop)
            began_s = time.perf_counter()
            sampler.open()
            stream.declare({name: {} for name in sampler.channels})
            sampler.start()
            found = {"start_s": time.perf_counter() - began_s}
            assert sampler.pid is not None
            since_s, cpu_s = time.perf_counter(), cpu_s_of(sampler.pid)
            time.sleep(seconds)
            cpu_s = cpu_s_of(sampler.pid) - cpu_s
            found["percent"] = 100 * cpu_s / (time.perf_counter() - since_s)
            edges_s = []
            for _ in range(10):
                since_s = time.perf_counter()
                sampler.sample()
                edges_s.append(time.perf_counter() - since_s)
            sampler.stop()
            stream.close()
            page.close()
            return {**found, "edge_us": float(np.median(edges_s)) * 1e6, **_times(sampler, stream, rate_hz)}

    return run


def _times(sampler: ProcessSampler, stream: PowerStream, rate_hz: int) -> dict[str, float]:
    """Lateness as the sampler saw it, and jitter: how far two readings are from a period apart."""
    report = sampler.report
    if report is None or sampler.trouble is not None:
        raise RuntimeError(f"the sampler failed: {sampler.trouble}")
    frame = read_stream(stream.path)
    times_ns = frame["t_mono_ns"][frame["channel"] == next(iter(sampler.channels))].to_numpy()
    # The first two are those of the start, the last ten those that were asked for.
    gaps_s = np.diff(times_ns[2:-10]) * 1e-9
    return {
        "late_p50_us": report.late_p50_s * 1e6,
        "late_p99_us": report.late_p99_s * 1e6,
        "jitter_p99_us": float(np.percentile(np.abs(gaps_s - 1 / rate_hz), 99)) * 1e6,
        "skipped": report.skipped,
    }


def waking_case(rate_hz: int, seconds: float, busy: int) -> measuring.Case:
    """A process whose native loop waits for its timer, with the sampler's priority, and reads nothing."""
    command = [sys.executable, "-m", "benchmarks.sampler", "--wake", str(rate_hz), str(seconds)]

    def run() -> Mapping[str, float]:
        with busy_cores(busy):
            done = subprocess.run(
                command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
            )
        return {"percent": float(done.stdout)}

    return run


def _wake(rate_hz: int, seconds: float) -> None:
    take_precedence()
    period_ns = 10**9 // rate_hz
    ticks = NativeTicks(RawFiles((), "digits"), MOST_HELD)
    timer = PeriodicTimer(time.monotonic_ns() + period_ns, period_ns)
    since_s, cpu_s, count = time.perf_counter(), time.process_time(), 0
    while count < rate_hz * seconds:
        ticks.run(timer, min(MOST_HELD, max(1, rate_hz // 5)))
        ticks.take()
        count = sum(ticks.ticks)
    print(100 * (time.process_time() - cpu_s) / (time.perf_counter() - since_s))


def own_reading(tree: Path, count: int) -> measuring.Case:
    """One reading by this project's means: all counters read, counted, written and shown."""

    def run() -> Mapping[str, float]:
        with tempfile.TemporaryDirectory() as folder, RaplSource(tree) as source:
            page, stream = LivePage(), PowerStream(Path(folder, "power"))
            stream.declare({channel.name: {} for channel in source.channels})
            live = LiveWatts(page, [channel.in_total for channel in source.channels])
            polled = PolledSource(source, 0, live)
            since_s = time.process_time()
            for number in range(count):
                polled.read()
                if number % BATCH == BATCH - 1:
                    stream.append_rows(polled.settle())
            us = (time.process_time() - since_s) / count * 1e6
            stream.close()
            page.close()
            return {"us": us, "counters": len(source.channels)}

    return run


def peer_reading(python: str, name: str, tree: Path, count: int) -> measuring.Case:
    """One reading by somebody else's reader, in a process of its own."""
    command = [python, str(Path(__file__).with_name("peer_readings.py")), name, str(tree), str(count)]

    def run() -> Mapping[str, float]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr.strip()[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if "missing" in found:
            raise ModuleNotFoundError(found["missing"])
        return found

    return run


def _peers(python: str, tree: Path, count: int) -> tuple[dict[str, measuring.Case], list[str]]:
    """The readers that are there, and a line for each that is not."""
    cases, missing = {}, []
    for name in PEERS:
        case = peer_reading(python, name, tree, 1)
        try:
            case()
        except ModuleNotFoundError as error:
            missing.append(f"{error}: {INSTALL}")
        else:
            cases[name] = peer_reading(python, name, tree, count)
    return cases, missing


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options("Cost and lateness of the energy sampler, beside other readers' cost.")
    parser.add_argument("--seconds", type=float, default=3.0, help="each measurement (default 3)")
    parser.add_argument("--rates", type=measuring.positive, nargs="+", default=RATES_HZ, metavar="HZ")
    parser.add_argument(
        "--loops",
        choices=LOOPS,
        nargs="+",
        default=list(LOOPS),
        help="what reads at the ticks (default: both)",
    )
    parser.add_argument(
        "--readings", type=measuring.positive, default=2000, help="of each reader (default 2000)"
    )
    parser.add_argument(
        "--peers-python",
        default=sys.executable,
        metavar="PYTHON",
        help="an interpreter with the other readers",
    )
    parser.add_argument("--wake", nargs=2, help=argparse.SUPPRESS)
    return parser


Found = dict[str, dict[str, measuring.Spread]]


def _show(sampling: Found, waking: Found, readings: Found, notes: list[str], seconds: float) -> None:
    headings = ["start_s", "edge_us", "late_p50_us", "late_p99_us", "jitter_p99_us", "skipped"]
    measuring.show(
        f"The sampler's process for {seconds:g} s: % of one core, of which waking up natively; lateness",
        ["cores, Hz, loop", "percent", "waking", *headings],
        [
            [
                case,
                spreads["percent"].text(),
                waking[case.rpartition(",")[0]]["percent"].text(),
                *(spreads[key].text(2 if key == "start_s" else 0) for key in headings),
            ]
            for case, spreads in sampling.items()
        ],
    )
    measuring.show(
        "One reading of the same tree, microseconds of processor time",
        ["reader", "us", "counters", "us a counter"],
        [
            [
                name,
                row["us"].text(1),
                f"{row['counters'].median:.0f}",
                f"{row['us'].median / row['counters'].median:.1f}",
            ]
            for name, row in readings.items()
        ],
        notes,
    )


def _targets(sampling: Found, rates_hz: list[int]) -> dict[str, bool]:
    """Which of the targets hold, by the medians."""
    found = {}
    for case, spreads in sampling.items():
        rate_hz = next(rate_hz for rate_hz in rates_hz if f", {rate_hz} Hz," in case)
        limit = TARGETS_PERCENT.get(rate_hz)
        if limit is not None:
            found[f"{case}: at most {limit:g} % of a core"] = spreads["percent"].median <= limit
        if case.startswith("busy"):
            found[f"{case}: p99 at most {LATEST_P99_MS:g} ms late"] = (
                spreads["late_p99_us"].median <= LATEST_P99_MS * 1e3
            )
    return found


def main() -> int:
    """Measure, print, record."""
    chosen = _parser().parse_args()
    if chosen.wake:
        _wake(int(chosen.wake[0]), float(chosen.wake[1]))
        return 0
    if native_loop() is None:
        print(f"the sampler's native loop is not compiled: run `{REMEDY}`", file=sys.stderr)
        return 1
    machine = measuring.Machine()
    # In memory where that can be, as the kernel's own tree is.
    with tempfile.TemporaryDirectory(dir=next((path for path in _MEMORY if path.is_dir()), None)) as folder:
        tree = make_tree(Path(folder, "powercap"))
        loads = {"idle": 0, "busy": measuring.cores()}
        kinds = [(f"{load}, {hz} Hz", hz, busy) for load, busy in loads.items() for hz in chosen.rates]
        cases = {}
        for name, hz, busy in kinds:
            for loop in chosen.loops:
                cases[f"{name}, {loop}; sampling"] = sampling_case(tree, hz, chosen.seconds, busy, loop)
            cases[f"{name}; waking"] = waking_case(hz, chosen.seconds, busy)
        peers, missing = _peers(chosen.peers_python, tree, chosen.readings)
        readings = measuring.alternate({"dahl": own_reading(tree, chosen.readings), **peers}, chosen.rounds)
        found = measuring.alternate(cases, chosen.rounds)
    sampling = {
        f"{name}, {loop}": found[f"{name}, {loop}; sampling"] for name, _, _ in kinds for loop in chosen.loops
    }
    waking = {name: found[f"{name}; waking"] for name, _, _ in kinds}
    targets = _targets(sampling, chosen.rates)
    held = [f"{'holds' if holds else 'missed'}: {target}" for target, holds in targets.items()]
    _show(sampling, waking, readings, [*missing, *held, machine.line()], chosen.seconds)
    measuring.record(
        chosen.json,
        "sampler",
        machine,
        seconds=chosen.seconds,
        sampling=sampling,
        waking=waking,
        readings=readings,
        missing=missing,
        targets=targets,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
