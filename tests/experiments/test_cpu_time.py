"""CPU time as the activity of a power model: clocks set by hand, joules by closed forms."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy import PowerModel, WorkerPower, activity_energy
from experiments.cpu_time import CpuTime, cpu_time_model

WORKER = WorkerPower(idle_w=0.5, polling_w=5.0, busy_w=9.0)
MODEL = PowerModel(base_w=15.0, workers=(WORKER, WORKER), stays_awake_s=0.1)


class Clocks:
    """A clock and a CPU time that are set by hand."""

    def __init__(self) -> None:
        self.now_s, self.used_s = 100.0, 7.0

    def pass_by(self, seconds: float, used_s: float) -> None:
        self.now_s += seconds
        self.used_s += used_s

    def counter(self, cores: int, **more: float) -> CpuTime:
        return CpuTime(lambda: self.now_s, cores, cpu_s=lambda: self.used_s, **more)


@given(
    st.lists(st.tuples(st.floats(0.001, 2.0), st.floats(0.0, 1.0)), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_joules_are_idle_watts_times_time_plus_extra_watts_times_cpu_time(
    steps: list[tuple[float, float]], workers: int, cores: int
) -> None:
    clocks, cores = Clocks(), max(cores, workers)
    counter = clocks.counter(cores)
    counter.mark()
    for seconds, share in steps:
        clocks.pass_by(seconds, share * seconds * cores)
        counter.mark()
    model = cpu_time_model(PowerModel(base_w=15.0, workers=(WORKER,) * workers), cores)
    seconds, used_s = clocks.now_s - 100.0, clocks.used_s - 7.0
    found = activity_energy(model, counter.take(), 100.0, clocks.now_s)
    assert found["base"].gross_j == pytest.approx(15.0 * seconds)
    assert found["cpu"].idle_j == pytest.approx(0.5 * workers * seconds)
    assert found["cpu"].net_j == pytest.approx((9.0 - 0.5) * used_s, abs=1e-9)


def test_a_thread_that_polls_is_counted_once() -> None:
    """An idle window of 2 s costs idle watts alone: what polls uses CPU time."""
    clocks = Clocks()
    counter = clocks.counter(2)
    counter.mark()
    clocks.pass_by(2.0, 0.0)
    counter.mark()
    found = activity_energy(cpu_time_model(MODEL, 2), counter.take(), 100.0, 102.0)
    assert found["cpu"].net_j == 0.0


def test_more_cpu_time_than_cores_can_give_is_every_core_the_whole_time() -> None:
    clocks = Clocks()
    counter = clocks.counter(2)
    counter.mark()
    clocks.pass_by(1.0, 2.001)
    counter.mark()
    found = activity_energy(cpu_time_model(MODEL, 2), counter.take(), 100.0, 101.0)
    assert found["cpu"].net_j == pytest.approx(2 * 8.5)


def test_what_was_taken_is_not_taken_again_and_the_next_stretch_goes_on_from_there() -> None:
    clocks = Clocks()
    counter = clocks.counter(1)
    counter.mark()
    clocks.pass_by(1.0, 0.5)
    counter.mark()
    assert len(counter.take()["worker"]) == 1
    assert len(counter.take()["worker"]) == 0
    clocks.pass_by(1.0, 0.25)
    counter.mark()
    later = counter.take()
    assert (later["start_s"].tolist(), later["end_s"].tolist()) == ([101.0], [101.25])


def test_marks_that_are_noted_are_a_period_apart() -> None:
    clocks = Clocks()
    counter = clocks.counter(1, period_s=0.5)
    for _ in range(11):
        counter.note()
        clocks.pass_by(0.25, 0.25)
    assert len(counter.take()["worker"]) == 5


def test_a_loop_of_this_process_is_a_core_that_is_busy() -> None:
    counter = CpuTime(time.monotonic, 64)
    counter.mark()
    begin_s = time.process_time()
    while time.process_time() < begin_s + 0.05:
        pass
    counter.mark()
    busy = counter.take()
    assert (busy["end_s"] - busy["start_s"]).sum() == pytest.approx(0.05, rel=0.2)


def test_gpus_are_refused() -> None:
    card = WorkerPower(idle_w=30.0, polling_w=35.0, busy_w=250.0, channel="gpu")
    with pytest.raises(ValueError, match=r"CPU time tells nothing of GPUs; use energy\.activity=tasks"):
        cpu_time_model(PowerModel(base_w=15.0, workers=(WORKER, card)), 2)


def test_no_cores_are_refused() -> None:
    with pytest.raises(ValueError, match="cores must be at least 1, got 0"):
        CpuTime(time.monotonic, 0)
