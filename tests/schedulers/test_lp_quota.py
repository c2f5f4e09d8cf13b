"""LpQuota: a schedule worked out by hand, quotas followed, plans made anew from measured lengths."""

from __future__ import annotations

import math

import numpy as np
import pytest

from schedulers import LpQuota
from schedulers.kinds import KEY, KINDS
from schedulers.lp_quota import TABLE, WIDTH
from tests.schedulers.records import empty_memory, kinds_of, system_of, task_of, workers_of
from tests.schedulers.schedules import Node, jobs_of, simulate

NODE = Node("carded", ("core", "core"), {"core": (1, 6), "gpu": (4, 34)}, ("gpu",))
BY_HAND = ["gpu0", "gpu0", "core0", "core1", "core0", "gpu0", "gpu0", "gpu0"]
JOBS = jobs_of(
    {"A": {"core": (4, 8), "gpu": (1, 20)}, "B": {"core": (2, 4), "gpu": (1, 20)}},
    [(kind, ()) for kind in "AABABAAA"],
)


def test_the_schedule_is_the_one_worked_out_by_hand() -> None:
    """Let x of the 6 A and y of the 2 B go to the GPU. The cores are busy for (4 (6-x) + 2 (2-y)) / 2 = 14 - 2x - y ms,
    the GPU for x + y. Idle, the machine takes 10 + 2 * 1 + 4 = 16 W. Moving an A costs 12 mJ and, while the cores end
    last, saves 2 ms = 32 mJ: worth it until both end together, 14 - 2x = x, at x = 14/3 and T = 14/3 ms. With a B
    moved too, x = (14 - 2y)/3 and T = (14 + y)/3: dearer and longer. So the GPU's quota is 7/9 of A and none of B.

    Deficits of the j-th A on GPU and cores, tasks given so far taken off:
    A0 7/9 > 2/9: GPU.       A1 14/9 - 1 > 4/9: GPU.      B2 cores; both idle: the lower id, core0 until 2.
    A3 21/9 - 2 = 3/9 < 6/9: cores; core0 would end at 2 + 4, core1 at 4: core1.
    B4 cores; core0 would end at 2 + 2, core1 at 4 + 2: core0.
    A5 28/9 - 2 > 8/9 - 1: GPU.    A6 35/9 - 3 = 8/9 > 10/9 - 1: GPU.    A7 42/9 - 4 = 6/9 > 12/9 - 1: GPU.
    """
    done = simulate(LpQuota(), NODE, JOBS)
    assert done.placed == BY_HAND


def test_its_schedule_is_not_that_of_eager() -> None:
    eager = simulate("eager", NODE, JOBS)
    assert eager.classes != [name.rstrip("01") for name in BY_HAND]


def placed(policy: LpQuota, kinds: list[int], workers: np.ndarray, memory: np.ndarray) -> list[int]:
    """Place tasks of these kinds one after the other on workers that stay idle."""
    return [policy.place(task_of(k), workers[k], system_of(), memory) for k in kinds]


def test_quotas_are_met_at_every_moment_to_less_than_one_task() -> None:
    """10 tasks of 1 s and 2 s: in balance the classes take 2/3 and 1/3 of them."""
    policy, memory = LpQuota(), empty_memory()
    workers = workers_of([0, 1], [[1.0, 2.0]], [[3.0, 1.0]])
    policy.plan(kinds_of([10]), workers, system_of(base_w=98.0), memory)
    choices = placed(policy, [0] * 10, workers, memory)
    for j in range(1, 11):
        assert abs(choices[:j].count(0) - j * 2 / 3) < 1


def test_without_static_watts_every_task_goes_where_it_is_cheapest() -> None:
    policy, memory = LpQuota(), empty_memory()
    workers = workers_of([0, 1], [[1.0, 2.0], [1.0, 2.0]], [[3.0, 1.0], [1.0, 3.0]])
    policy.plan(kinds_of([4, 4]), workers, system_of(base_w=0.0, idle_w=0.0), memory)
    assert placed(policy, [0, 1, 0, 1], workers, memory) == [1, 0, 1, 0]


def test_a_deadline_moves_tasks_to_the_faster_class() -> None:
    """T >= 20/3 s; at 1.5 times that, 10 s, the slow cheap class can take 5 of the 10 tasks."""
    policy, memory = LpQuota(max_slowdown=1.5), empty_memory()
    workers = workers_of([0, 1], [[1.0, 2.0]], [[3.0, 1.0]])
    policy.plan(kinds_of([10]), workers, system_of(base_w=0.0, idle_w=0.0), memory)
    assert placed(policy, [0] * 10, workers, memory).count(1) == 5


def test_in_a_class_the_worker_that_ends_it_first_is_chosen() -> None:
    policy, memory = LpQuota(), empty_memory()
    workers = workers_of([0, 0, 0], [[1.0]])
    policy.plan(kinds_of([3]), workers, system_of(), memory)
    workers["available_s"][0] = [2.0, 0.5, 0.5]
    workers["transfer_s"][0] = [0.0, 0.4, 0.3]
    assert placed(policy, [0], workers, memory) == [2]


def test_a_kind_that_is_not_planned_goes_where_it_ends_first() -> None:
    policy, memory = LpQuota(), empty_memory()
    workers = workers_of([0, 1], [[1.0, 2.0], [5.0, 4.0]], [[1.0, 9.0], [1.0, 9.0]])
    policy.plan(kinds_of([5]), workers[:1], system_of(base_w=0.0, idle_w=0.0), memory)
    assert placed(policy, [0, 1], workers, memory) == [0, 1]


def test_a_plan_uses_the_lengths_that_were_measured() -> None:
    """Both classes are thought to take 1 s; class 0 then measures 3 s three times, with the expected one 2.5 s on
    average, so that its joules are 2.5 * 2 and class 1 is cheaper."""
    policy, memory = LpQuota(), empty_memory()
    workers, idle = workers_of([0, 1], [[1.0, 1.0]], [[2.0, 3.0]]), system_of(base_w=0.0, idle_w=0.0)
    policy.plan(kinds_of([5]), workers, idle, memory)
    assert placed(policy, [0, 0, 0], workers, memory) == [0, 0, 0]
    for _ in range(3):
        policy.task_ended(task_of(0), 0, 3.0, idle, memory)
    assert placed(policy, [0], workers, memory) == [0]
    policy.plan(kinds_of([5]), workers, idle, memory)
    assert placed(policy, [0, 0, 0], workers, memory) == [1, 1, 1]


def test_a_kind_on_two_rows_of_the_plan_is_one_kind() -> None:
    policy, memory = LpQuota(), empty_memory()
    workers = workers_of([0, 1], [[1.0, 2.0]] * 2, [[3.0, 1.0]] * 2)
    kinds = kinds_of([4, 6])
    kinds["codelet"], kinds["footprint"] = 0, 0
    policy.plan(kinds, workers, system_of(base_w=98.0), memory)
    assert placed(policy, [0] * 10, workers, memory).count(0) in (6, 7)


def test_the_plan_fits_into_a_policys_memory() -> None:
    assert empty_memory().size >= TABLE + KINDS * (KEY + WIDTH)


@pytest.mark.parametrize("value", [0.99, math.nan])
def test_a_parameter_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"max_slowdown must be a number at least 1, got"):
        LpQuota(max_slowdown=value)
