"""Kinds of task measured alone on the real StarPU, against a powercap tree that moves with the workers' busy time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from dahl import starpu
from energy import EnergySession, MeterRecords, PowerStream
from experiments import calibrate_check
from experiments.alone import Burst, TaskRunner
from experiments.calibrate_check import Mixed, run_mixed
from tests.dahl.starpu_kernels import SPIN
from tests.experiments.powercap_tree import BusyTree

WATTS = {"": 0.0, "heavy": 24.0, "light": 8.0, "mixed": 10.0}
WORKERS = 2
BASE_W = 2.0


class Bench:
    """Codelets that spin for different times, on a counter of its own."""

    def __init__(self, runtime: starpu.Runtime, session: EnergySession, tree: BusyTree, stream: Path) -> None:
        self.runtime, self.session, self.tree, self.stream = runtime, session, tree, stream
        self._codelets: dict[str, starpu.Codelet] = {}

    def task(self, name: str, loops: int = 300_000, footprint: int = 0) -> starpu.RecordedTask:
        if name not in self._codelets:
            self._codelets[name] = self.runtime.codelet(name, SPIN)
        handle = self.runtime.register(np.ones(4, np.float32))
        args = SPIN.pack([(4,)], {"loops": loops})
        return starpu.RecordedTask(self._codelets[name], (handle,), args, footprint)

    def baseline(self) -> None:
        self.runtime.pause()
        self.session.idle_w = {name: idle.watts for name, idle in self.session.measure_idle(0.3).items()}
        self.runtime.resume()


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    tree = BusyTree(folder / "powercap", BASE_W, WATTS)
    stream = folder / "power.stream"
    with (
        starpu.Runtime(cpu_workers=WORKERS, scheduler="eager", home=folder / "starpu") as runtime,
        EnergySession([tree], stream=PowerStream(stream), rate_hz=100) as session,
    ):
        yield Bench(runtime, session, tree, stream)


def test_the_watts_of_a_tree_that_moves_with_busy_time_come_back(tmp_path: Path) -> None:
    with bench(tmp_path) as own:
        own.baseline()
        runner = TaskRunner(own.runtime, own.session, limit_s=1.2, tell=own.tree.run)
        runner.measure_runtime()
        found = {name: runner.measure(name, own.task(name)) for name in ("heavy", "light")}
        assert runner.measures
        assert own.session.idle_w["rapl:package-0"] == pytest.approx(BASE_W, rel=0.1)
    for name, alone_of in found.items():
        # The first 64 tasks are not counted; where other processes held a core, a busy second is less of its time.
        count = len(alone_of.lengths_s)
        share = own.tree.cpu_s[name] * count / (count + 64) / alone_of.lengths_s.sum()
        assert 0 < share < 1.15
        assert alone_of.watts == pytest.approx(WATTS[name] * share, rel=0.1), name
        assert alone_of.watts_low <= alone_of.watts <= alone_of.watts_high


def test_what_the_runtime_draws_without_tasks_is_not_the_tasks(tmp_path: Path) -> None:
    bursts = [
        Burst(1.0, busy_s, np.full(10, busy_s / 10), 12.0 * busy_s + 3.0 * (WORKERS - busy_s), 0.01)
        for busy_s in (1.0, 1.2, 1.5, 1.4, 1.1)
    ]
    with bench(tmp_path) as own:
        runner = TaskRunner(own.runtime, own.session, limit_s=1.5)
        runner.runtime_w = 3.0
        found = runner.alone(bursts)
    assert found.watts == pytest.approx(12.0)
    assert (found.watts_low, found.watts_high) == pytest.approx((12.0 - 0.05 / 6.2, 12.0 + 0.05 / 6.2))
    assert found.resolved


def test_without_a_counter_only_time_is_measured(tmp_path: Path) -> None:
    with (
        starpu.Runtime(cpu_workers=WORKERS, scheduler="eager", home=tmp_path) as runtime,
        EnergySession() as session,
    ):
        runner = TaskRunner(runtime, session, limit_s=1.0)
        runner.measure_runtime()
        own = Bench(runtime, session, None, tmp_path)
        short, long = (runner.measure("task", own.task("task", loops)) for loops in (20_000, 200_000))
    assert not runner.measures
    assert math.isnan(short.watts)
    assert not short.resolved
    assert 5 < np.median(long.lengths_s) / np.median(short.lengths_s) < 20


def test_what_a_task_writes_is_not_shared_by_workers_and_stays_as_it_was(tmp_path: Path) -> None:
    with (
        starpu.Runtime(cpu_workers=WORKERS, scheduler="eager", home=tmp_path) as runtime,
        EnergySession() as session,
    ):
        own = Bench(runtime, session, None, tmp_path)
        task = own.task("task", 100_000)
        before = task.handles[0].array.copy()
        TaskRunner(runtime, session, limit_s=0.2).measure("task", task)
        assert (task.handles[0].array == before).all()


def test_mini_batches_are_set_beside_the_joules_of_their_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_check, "CHECK_S", 1.0)
    with bench(tmp_path) as own:
        own.session.idle_w = {"rapl:package-0": BASE_W}
        runner = TaskRunner(own.runtime, own.session, limit_s=1.0)
        runner.runtime_w = 0.0
        task = own.task("mixed", 50_000)

        def rehearse(repeats: int) -> None:
            own.tree.run("mixed")
            for _ in range(100 * repeats):
                own.runtime.submit(task.codelet, task.handles, task.args)
            own.runtime.wait_all()
            own.tree.run("")

        mixed = run_mixed(own.runtime, own.session, runner, rehearse, own.stream)
    assert mixed.joules == pytest.approx(WATTS["mixed"] * own.tree.cpu_s["mixed"], rel=0.08)
    assert len(mixed.meter.joules) >= 20, "1 s at 100 Hz, on a machine that may be busy"
    check = mixed.check({0: ("mixed", WATTS["mixed"])})
    assert (check["never_apart"], check["rank"]) == ([], 1)
    assert check["predicted_j"] == pytest.approx(
        WATTS["mixed"] * (mixed.trace["end_s"] - mixed.trace["start_s"]).sum()
    )


def by_hand(lengths: Sequence[tuple[int, float]], interval_s: float) -> Mixed:
    """Tasks of these footprints and lengths one after another on one worker, and a meter of 1 J in each interval."""
    trace = np.zeros(len(lengths), starpu.TRACE)
    trace["footprint"] = [footprint for footprint, _ in lengths]
    ends_s = np.cumsum([length_s for _, length_s in lengths])
    trace["start_s"], trace["end_s"] = np.concatenate([[0.0], ends_s[:-1]]), ends_s
    edges_s = np.arange(0.0, ends_s[-1], interval_s)
    meter = MeterRecords("rapl:package-0", edges_s[:-1], edges_s[1:], np.ones(edges_s.size - 1))
    return Mixed(float(ends_s[-1]), 1, trace, float(edges_s.size - 1), 0.0, 0.0, meter)


def test_it_flags_two_kinds_that_never_run_apart() -> None:
    """Kinds 1 and 2 take turns every millisecond, the meter is read every 40 ms; kind 0 has phases of its own."""
    phase = [*[(0, 0.001)] * 100, *[(1, 0.001), (2, 0.001)] * 50]
    keys = {0: ("conv2d", 10.0), 1: ("relu", 5.0), 2: ("bias", 15.0)}
    found = by_hand(phase * 20, 0.04).check(keys)
    assert (found["never_apart"], found["rank"]) == ([["bias", "relu"]], 2)
    assert found["predicted_j"] == pytest.approx(20 * (0.1 * 10 + 0.05 * 5 + 0.05 * 15))
    sharp = by_hand(phase * 20, 0.0015).check(keys)
    assert (sharp["never_apart"], sharp["rank"]) == ([], 3), (
        "a meter that is read every 1.5 ms tells them apart"
    )


def test_kinds_without_known_watts_leave_nothing_to_foretell() -> None:
    found = by_hand([(0, 0.001), (7, 0.001)] * 100, 0.04).check({0: ("conv2d", 10.0)})
    assert math.isnan(found["predicted_j"])
    assert by_hand([(0, 0.001)], 0.04).check({0: ("conv2d", 10.0)})["never_apart"] is None
