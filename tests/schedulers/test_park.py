"""Park: the active set, the pace, and a schedule worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from schedulers import Park
from schedulers.kinds import KEY, KINDS
from schedulers.park import ACTIVE, TABLE, WIDTH
from tests.schedulers.records import empty_memory, kinds_of, system_of, workers_of
from tests.schedulers.schedules import Node, jobs_of, simulate

NODE = Node("quad", ("big", "big", "little", "little"), {"big": (1, 6), "little": (0.5, 1.5)})
JOBS = jobs_of(
    {"R": {"big": (1, 5), "little": (8, 8)}, "B": {"big": (1.2, 6), "little": (2, 2)}},
    [("R", ()), *[("B", (0,))] * 8],
)


def test_the_schedule_is_the_one_worked_out_by_hand() -> None:
    """R, then eight B. With every worker, R and x of the B on the big cores: 2 T = 1 + 1.2 x and 2 T = 2 (8 - x), so
    x = 4.6875, T = 3.3125 ms, and the deadline is 4 T = 13.25 ms. One little core (1.5 W) would take 8 + 16 ms, two
    (3 W) 12 ms, one big core (6 W) 10.6 ms: the two little ones are active.
    The work is 1 + 8 * 1.2 = 10.6 ms: R is a share of 0.094, each B one of 0.113. In ms:

    0     R is ready. 0 + 12 < 13.25: in time, so the big cores leave it; a little one takes it until 8.
    8     8 + (1 - 0.094) * 12 = 18.9: late, everybody is awake. Once a B more is taken that is 17.5, then 16.2, then
          14.8, still late: all four workers take one of B1 to B4. (The big cores would need 8 * 1.2 / 2 = 4.8 ms for
          all of them, and with two running 1.2 + 5 * 1.2 / 2 ms: the little ones, 2 ms, do not leave theirs.)
    9.2   The big cores are free. 9.2 + (1 - 0.547) * 12 = 14.6: one takes B5. 13.28: the other takes B6.
    10    The little cores are free and active: B7 and B8, until 12. Nothing is left for the big ones at 10.4.
    """
    done = simulate(Park(max_slowdown=4.0, probe_share=0.0), NODE, JOBS)
    assert done.classes[0] == "little"
    assert sorted(done.placed[1:5]) == ["big0", "big1", "little0", "little1"]
    assert done.classes[5:] == ["big", "big", "little", "little"]
    assert max(done.end_ms) == pytest.approx(12, abs=0.05)


def test_its_schedule_is_not_that_of_eager() -> None:
    """With ten times as long as all workers need, 33 ms, one little core (24 ms) runs everything."""
    ours = simulate(Park(max_slowdown=10.0, probe_share=0.0), NODE, JOBS)
    eager = simulate("eager", NODE, JOBS)
    assert len(set(ours.placed)) == 1
    assert set(ours.classes) == {"little"}
    assert set(eager.classes) == {"big", "little"}


def active_after_plan(policy: Park, counts: list[int], workers: np.ndarray) -> list[int]:
    memory = empty_memory()
    policy.plan(kinds_of(counts), workers, system_of(), memory)
    return np.flatnonzero(memory[ACTIVE : ACTIVE + workers.shape[1]]).tolist()


@pytest.mark.parametrize(
    ("max_slowdown", "active"), [(1.0, [0, 1, 2, 3]), (1.34, [0, 1, 2]), (2.0, [0, 1]), (4.0, [0])]
)
def test_on_equal_workers_the_least_number_that_keeps_the_deadline_is_active(
    max_slowdown: float, active: list[int]
) -> None:
    """n of 4 equal workers take 4 / n times as long as all."""
    workers = workers_of([0] * 4, [[1.0]])
    assert active_after_plan(Park(max_slowdown=max_slowdown), [100], workers) == active


def test_the_class_of_fewer_watts_for_its_speed_is_active() -> None:
    """A worker of class 1 is twice as fast for three times the watts; two of class 0 are as fast as one of it."""
    workers = workers_of([0, 0, 1], [[2.0, 1.0]], busy_w=[5.0, 15.0])
    assert active_after_plan(Park(max_slowdown=2.0), [100], workers) == [0, 1]
    workers = workers_of([0, 0, 1], [[2.0, 1.0]], busy_w=[5.0, 9.0])
    assert active_after_plan(Park(max_slowdown=2.0), [100], workers) == [2]


def test_a_kind_that_one_class_cannot_run_keeps_a_worker_of_the_other_active() -> None:
    workers = workers_of([0, 1], [[1.0, 1.0], [math.nan, 1.0]], busy_w=[1.0, 100.0])
    assert 1 in active_after_plan(Park(max_slowdown=50.0), [100, 1], workers)


def pick(policy: Park, worker: int, now_s: float, workers: np.ndarray, memory: np.ndarray) -> int:
    return policy.pick(worker, kinds_of([5]), workers, system_of(now_s=now_s), memory)


def test_a_parked_worker_wakes_when_the_epoch_is_late_and_sleeps_when_it_has_caught_up() -> None:
    """100 tasks of 1 s on 2 workers: 50 s. The deadline is 105 s, of which one worker needs 100."""
    policy, memory, workers = (
        Park(max_slowdown=2.1, probe_share=0.0),
        empty_memory(),
        workers_of([0, 0], [[1.0]]),
    )
    policy.plan(kinds_of([100]), workers, system_of(), memory)
    assert pick(policy, 1, 1000.0, workers, memory) == -1
    assert pick(policy, 0, 1000.0, workers, memory) == 0
    assert pick(policy, 1, 1005.5, workers, memory) == -1  # 5.5 + 99 s
    assert pick(policy, 1, 1007.5, workers, memory) == 0  # 7.5 + 99
    assert pick(policy, 1, 1007.5, workers, memory) == 0  # 7.5 + 98
    assert pick(policy, 1, 1007.5, workers, memory) == -1  # 7.5 + 97


def test_the_pace_is_measured_while_every_worker_is_active() -> None:
    """The area takes 50 s, on one worker 100. The first tenth takes 20 s, so the whole takes all workers 200 s, four
    times its area; the deadline is 400 s, and one worker is thought to need 400."""
    policy, memory, workers = (
        Park(max_slowdown=2.0, probe_share=0.1),
        empty_memory(),
        workers_of([0, 0], [[1.0]]),
    )
    policy.plan(kinds_of([100]), workers, system_of(), memory)
    for task in range(10):
        assert pick(policy, 1, task * 2.0, workers, memory) == 0
    assert pick(policy, 1, 20.0, workers, memory) == -1
    assert pick(policy, 1, 39.0, workers, memory) == -1  # 39 + 0.9 * 400
    assert pick(policy, 1, 41.0, workers, memory) == 0


def test_a_slow_worker_leaves_a_task_to_a_faster_class_that_is_awake_and_done_sooner() -> None:
    """2 s on worker 0; 1 s on worker 1, which has 0.9 s or 1.1 s to do. Parked, worker 1 is not waited for."""
    policy, memory = Park(max_slowdown=100.0, probe_share=0.0), empty_memory()
    workers = workers_of([0, 1], [[2.0, 1.0]], busy_w=[1.0, 50.0])
    policy.plan(kinds_of([100]), workers, system_of(), memory)
    assert memory[ACTIVE : ACTIVE + 2].tolist() == [1, 0]
    taken = []
    for awake, available_s, count in ((0, 0.9, 1), (1, 0.9, 1), (1, 1.1, 1), (1, 0.9, 2)):
        memory[ACTIVE + 1], workers["available_s"][0, 1] = awake, available_s
        taken.append(policy.pick(0, kinds_of([count]), workers, system_of(), memory))
    assert taken == [0, -1, 0, 0]


def test_a_kind_that_is_not_planned_is_for_every_worker() -> None:
    policy, memory = Park(max_slowdown=2.0, probe_share=0.0), empty_memory()
    workers = workers_of([0, 0], [[1.0], [1.0]])
    policy.plan(kinds_of([100]), workers[:1], system_of(), memory)
    assert policy.pick(1, kinds_of([5, 5]), workers, system_of(), memory) == 1
    assert policy.pick(0, kinds_of([5, 5]), workers, system_of(), memory) == 0


def test_the_plan_fits_into_a_policys_memory() -> None:
    assert empty_memory().size >= TABLE + KINDS * (KEY + WIDTH)


def test_unknown_busy_watts_stop_the_plan() -> None:
    workers = workers_of([0], [[1.0]], busy_w=[math.nan])
    with pytest.raises(ValueError, match=r"busy_w must be above 0 for each worker class, got \[nan\]"):
        Park().plan(kinds_of([1]), workers, system_of(), empty_memory())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_slowdown": 0.9}, "max_slowdown must be a number at least 1 and at most 1e\\+06, got 0.9"),
        ({"max_slowdown": math.inf}, "got inf"),
        ({"probe_share": 1.1}, "probe_share must be a number at least 0 and at most 1, got 1.1"),
        ({"probe_share": -0.1}, "got -0.1"),
        ({"probe_share": math.nan}, "got nan"),
    ],
)
def test_a_parameter_out_of_range_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Park(**given)
