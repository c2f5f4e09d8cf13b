"""power_cap against schedules worked out by hand: by the model alone, and with watts that are replayed."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from dahl import starpu
from schedulers import CompiledPolicy, InterpretedPolicy, PowerCap, power_cap
from schedulers.views import READY, SYSTEM, WORKER
from tests.dahl.starpu_kernels import SPIN
from tests.dahl.trainers import machine_watts
from tests.schedulers.schedules import Job, Node, simulate

NODE = Node("quad", ("big", "big", "little", "little"), {"big": (2.0, 32.0), "little": (1.0, 5.0)})
IDLE_W = 10.0 + 2 * 2.0 + 2 * 1.0
A = {"big": (10e-3, 0.30), "little": (25e-3, 0.10)}
JOBS = [*[Job(A)] * 6, Job(A, after=(3,)), Job(A, after=(4,))]


def test_it_holds_tasks_back_and_takes_the_fastest_worker_that_fits() -> None:
    """cap_w=60. The machine idles at 16 W; big adds 30 W, little 4 W. All four at work would draw 84 W.

    0   at  0, 16 W: each fits by itself; a big ends it first, the lower id: 46 W               big0      0-10
    1   at  0, 46 W: big1 would make it 76; little0: 50                                         little0   0-25
    2   at  0, 50 W: little1: 54                                                                little1   0-25
        big1 would make it 84: it stays idle while 3, 4 and 5 wait.
    3   at 10, 0 is done, 24 W: a big: 54; big1 as well, but the lower id                       big0     10-20
    4   at 20, 3 is done, 24 W: 5 came before 6, 4 before 5                                     big0     20-30
    5   at 25, 1 is done, 50 W with 2 still running or 46: a little fits, a big does not        little0  25-50
    6   at 25: the other one: 54                                                                little1  25-50
    7   at 30, 4, which it follows, is done, 24 W: 54                                           big0     30-40

    big1 never runs. eager starts four tasks at 0.
    """
    outcome = simulate(PowerCap(cap_w=60.0), NODE, JOBS)
    assert outcome.placed == ["big0", "little0", "little1", "big0", "big0", "little0", "little1", "big0"]
    hand_ms = [(0, 10), (0, 25), (0, 25), (10, 20), (20, 30), (25, 50), (25, 50), (30, 40)]
    for (start, end), (start_ms, end_ms) in zip(outcome.milliseconds, hand_ms, strict=True):
        assert (start, end) == (pytest.approx(start_ms, abs=0.1), pytest.approx(end_ms, abs=0.1))
    eager = simulate("eager", NODE, JOBS)
    assert eager.placed != outcome.placed
    assert max(eager.start_ms[:4]) < 0.1


QUIET, LOUD = (0.0, 16.0), (0.0, 70.0)


@pytest.mark.parametrize(
    ("replayed_watts", "placed", "starts_ms"),
    [
        (
            [QUIET],
            ["big0", "big1", "little0", "little1", "big0", "big1", "big0", "big1"],
            [0, 0, 0, 0, 10, 10, 20, 20],
        ),
        ([LOUD], ["little0"] * 8, [0, 25, 50, 75, 100, 125, 150, 175]),
        (
            [LOUD, (0.030, 16.0)],
            ["little0", "little0", "big0", "little0", "big1", "little1", "big0", "big1"],
            [0, 25, 50, 50, 50, 50, 60, 60],
        ),
    ],
    ids=["quiet", "loud", "loud_until_30_ms"],
)
def test_replayed_watts_decide_what_runs(
    replayed_watts: list[tuple[float, float]], placed: list[str], starts_ms: list[float]
) -> None:
    """Eight equal tasks, cap_w=60, gain=1: the meter is taken at its word.

    quiet: the meter stays at 16 W whatever runs, so each worker fits, the bigs first: both, then both littles. The bigs
    end at 10 and 20, and go on; the littles at 25, when all tasks are taken.
    loud: at 70 W nothing fits, so one task runs at a time: on little0, which adds least.
    loud until 30 ms: as loud; nothing asks before the task on little0 ends at 50. Then a worker fits, and with the next
    reading it is as quiet.
    """
    outcome = simulate(PowerCap(cap_w=60.0, gain=1.0), NODE, [Job(A)] * 8, replayed_watts=replayed_watts)
    assert outcome.start_ms == pytest.approx(starts_ms, abs=0.1)
    # Workers that ask at one moment do so in an order of SimGrid's.
    moments = [round(start_ms) for start_ms in outcome.start_ms]
    assert sorted(zip(moments, outcome.placed, strict=True)) == sorted(zip(starts_ms, placed, strict=True))


@pytest.mark.parametrize("cap_w", [17.0, 47.0, 60.0])
def test_the_cap_is_exceeded_by_at_most_one_task(cap_w: float) -> None:
    """Random lengths and dependences; the power is added up from the trace at each start."""
    rng, jobs = random.Random(5), []
    for i in range(40):
        big_s = rng.uniform(1e-3, 5e-3)
        costs = {"big": (big_s, 30 * big_s), "little": (3 * big_s, 12 * big_s)}
        jobs.append(Job(costs, tuple(rng.sample(range(i), 2)) if i >= 10 else ()))
    outcome = simulate(PowerCap(cap_w=cap_w), NODE, jobs)
    peaks = []
    for start_s in outcome.start_s:
        running = outcome.running(start_s)
        added_w = [NODE.watts[name[:-1]][1] - NODE.watts[name[:-1]][0] for name in running]
        power_w = IDLE_W + sum(added_w)
        peaks.append(power_w)
        assert power_w <= cap_w or len(running) == 1
        assert power_w <= cap_w + max(added_w)
    assert max(peaks) == {17.0: 20.0, 47.0: 46.0, 60.0: 54.0}[cap_w]


def state(**system: float) -> tuple[np.recarray, np.recarray, np.record]:
    """One kind of task, one worker of 10 W that can run it, one that runs something already."""
    ready = np.zeros(1, READY).view(np.recarray)
    workers = np.zeros((1, 2), WORKER).view(np.recarray)
    workers.can_run, workers.busy_w = 1, 10.0
    workers.queued[0, 1] = 1
    views = np.zeros(1, SYSTEM).view(np.recarray)
    views.measured_w, views.running_count = np.nan, 1
    for name, value in system.items():
        views[name] = value
    return ready, workers, views[0]


@pytest.mark.parametrize(
    ("measured_w", "age_s", "taken"),
    [(95.0, 0.0, False), (85.0, 0.0, True), (95.0, 2.0, True), (math.nan, 0.0, True)],
    ids=["a reading above", "a reading below", "an old reading", "no meter"],
)
def test_the_model_counts_where_there_is_no_fresh_reading(
    measured_w: float, age_s: float, taken: bool
) -> None:
    ready, workers, system = state(now_s=5.0, modelled_w=50.0, measured_w=measured_w, measured_age_s=age_s)
    policy = PowerCap(cap_w=100.0, max_age_s=1.0)
    assert (policy.pick(0, ready, workers, system, np.zeros(16)) == 0) == taken


def test_readings_move_the_correction_by_the_gain_until_the_model_agrees() -> None:
    """The model tells 50 W all the time, the meter 50 W and then 90 W, so 100 W leave room for 10 W while the
    correction is up to 40 W: 0, 20, 30, 35, 37.5 ... with half of the gap at each reading, never above."""
    memory, rooms = np.zeros(16), []
    for second in range(12):
        measured_w = 50.0 if second == 0 else 90.0
        ready, workers, system = state(now_s=1.0 + second, modelled_w=50.0, measured_w=measured_w)
        workers.can_run[0, 0] = 0  # only look
        PowerCap(cap_w=100.0, gain=0.5).pick(1, ready, workers, system, memory)
        workers.can_run[0, 0], workers.queued[0, 0] = 1, 0
        PowerCap(cap_w=100.0, gain=0.5).pick(0, ready, workers, system, memory.copy())
        rooms.append(float(workers.score[0, 0]) - 60.0)
    assert rooms[:5] == pytest.approx([0.0, 20.0, 30.0, 35.0, 37.5])
    assert rooms[-1] == pytest.approx(40.0, abs=0.1)


def test_a_task_that_was_let_in_counts_before_the_next_reading() -> None:
    """80 W measured at second 1; 10 W more run by the model at 1.05, so 10 W more are let in and then no more."""
    memory, policy = np.zeros(16), PowerCap(cap_w=100.0)
    ready, workers, system = state(now_s=1.0, modelled_w=50.0, measured_w=80.0)
    assert policy.pick(0, ready, workers, system, memory) == 0
    ready, workers, system = state(now_s=1.05, modelled_w=60.0, measured_w=80.0, measured_age_s=0.05)
    assert policy.pick(0, ready, workers, system, memory) == 0
    ready, workers, system = state(now_s=1.06, modelled_w=70.0, measured_w=80.0, measured_age_s=0.06)
    assert policy.pick(0, ready, workers, system, memory) == -1


def test_a_reading_is_compared_with_the_mean_of_the_model_since_the_last_one() -> None:
    """A task of 10 W is let in at second 0.1 and ends after a quarter of the second to the next reading, which is
    102.5 W: the mean of 110 W (a quarter) and 100 W. So the model was right, and 100 W run."""
    memory, policy = np.zeros(16), PowerCap(cap_w=110.0, gain=1.0)
    ready, workers, system = state(now_s=0.1, modelled_w=100.0, measured_w=100.0)
    assert policy.pick(0, ready, workers, system, memory) == 0
    _, _, system = state(now_s=0.35, modelled_w=100.0, measured_w=100.0, measured_age_s=0.25)
    policy.task_ended(None, 0, 0.25, system, memory)
    ready, workers, system = state(now_s=1.1, modelled_w=100.0, measured_w=102.5)
    assert policy.pick(0, ready, workers, system, memory) == 0
    assert workers.score[0, 0] == pytest.approx(110.0)


def test_the_model_is_told_when_the_last_task_has_ended() -> None:
    """Nobody asks after it: the hook tells that the machine draws 10 W and 1 W for its idle worker again."""
    runtime = starpu.Runtime(cpu_workers=1, scheduler=CompiledPolicy(PowerCap()), watts=machine_watts)
    with runtime:
        spin = runtime.codelet("spin", SPIN, model="costs")
        handle = runtime.register(np.ones(1, np.float32))
        args = SPIN.pack([(1,)], {"loops": 1000})
        runtime.submit(spin, [handle], args, costs=starpu.Costs([1e-3], [7e-3]))
    assert runtime._installed is not None
    assert runtime._installed.memory[power_cap._MODELLED_W] == 11.0


def test_a_cap_below_the_watts_of_the_idle_machine_is_refused_before_the_first_task() -> None:
    """10 W and twice 1 W with nothing running; 12 W let one task at a time run, 11.9 W nobody can keep."""
    refused = "cap_w=11.9 is below the 12 W that the machine draws with nothing running: give more, or"
    for wrap in (CompiledPolicy, InterpretedPolicy):
        runtime = starpu.Runtime(cpu_workers=2, scheduler=wrap(PowerCap(cap_w=11.9)), watts=machine_watts)
        with pytest.raises(ValueError, match=refused), runtime:
            pass
    with starpu.Runtime(cpu_workers=2, scheduler=CompiledPolicy(PowerCap(cap_w=12.0)), watts=machine_watts):
        pass


@pytest.mark.parametrize(
    ("cap_share", "most_at_once"), [(0.0, 1), (8 / 68, 2), (37 / 68, 2), (38 / 68, 3), (0.99, 3), (1.0, 4)]
)
def test_the_share_of_the_cap_tells_how_much_runs_at_once(cap_share: float, most_at_once: int) -> None:
    """Above idle a little adds 4 W and a big 30 W, 68 W in all: 8 W take both littles, 38 W a big too."""
    outcome = simulate(PowerCap(cap_share=cap_share), NODE, [Job(A)] * 8)
    assert max(len(outcome.running(start_s)) for start_s in outcome.start_s) == most_at_once


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cap_w": -1.0}, r"^cap_w must be a number at least 0, got -1.0$"),
        ({"cap_share": 1.5}, r"^cap_share must be a number at least 0 and at most 1, got 1.5$"),
        ({"max_age_s": -1.0}, r"^max_age_s must be a number above 0, got -1.0$"),
        ({"gain": 1.5}, r"^gain must be a number above 0 and at most 1, got 1.5$"),
        ({"gain": 0.0}, r"^gain must be a number above 0 and at most 1, got 0.0$"),
        ({"cap_w": math.nan}, "got nan"),
    ],
)
def test_a_parameter_out_of_range_is_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PowerCap(**parameters)
