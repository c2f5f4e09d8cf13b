"""PlanAhead: schedules worked out by hand, followed on a simulated node; what has no plan; when it plans."""

from __future__ import annotations

import numpy as np
import pytest

from dahl.starpu.policy import GraphLayout, LinkTimes
from schedulers import PlanAhead
from schedulers.plan_ahead import GRAPHS, plan_row
from tests.schedulers.records import empty_memory, system_of, task_of, workers_of
from tests.schedulers.schedules import Node, jobs_of, simulate

NODE = Node("pair", ("fast", "slow"), {"fast": (1, 31), "slow": (1, 6)}, base_w=8.0)
KINDS = {"A": {"fast": (2, 60), "slow": (4, 20)}, "B": {"fast": (6, 180), "slow": (30, 150)}}
JOBS = jobs_of(KINDS, [("A", ()), ("A", ()), ("A", ()), ("B", (2,))])


def test_it_starts_what_the_longest_way_waits_for_and_gives_the_rest_to_the_cheap_worker() -> None:
    """B waits for the third A: 2 + 6 ms on the fast worker, in which the slow one does the two others, 4 ms each.

    Taken in the order of arrival, the fast worker would do an A before: 10 ms.
    """
    done = simulate(PlanAhead(max_slowdown=1.0, effort=2000), NODE, JOBS)
    assert done.classes == ["slow", "slow", "fast", "fast"]
    assert max(done.end_ms) == pytest.approx(8.0, abs=0.2)
    assert max(simulate("dmda", NODE, JOBS).end_ms) == pytest.approx(10.0, abs=0.2)


def test_slack_goes_to_the_cheaper_worker() -> None:
    """Within 1.3 times the 8 ms the third A can be slow as well where it comes first: 4 + 6 ms, and 80 - 20 mJ less.

    The 2 ms more cost 10 W * 2 ms = 20 mJ. The slow worker then does three A until 12 ms: too late, so one of them is
    the fast worker's, which is free until 4 ms.
    """
    done = simulate(PlanAhead(max_slowdown=1.3, effort=2000), NODE, JOBS)
    assert done.classes.count("slow") == 2
    assert max(done.end_ms) <= 1.3 * 8 + 0.2


def test_interpreted_it_places_alike() -> None:
    policy = PlanAhead(max_slowdown=1.0, effort=2000)
    assert simulate(policy, NODE, JOBS, compiled=False).placed == simulate(policy, NODE, JOBS).placed


def test_it_follows_its_plan_in_every_repetition() -> None:
    policy = PlanAhead(max_slowdown=1.0, effort=2000)
    assert simulate(policy, NODE, JOBS, rounds=3).placed == simulate(policy, NODE, JOBS).placed


def layout(number: int, tasks: int) -> GraphLayout:
    one = np.array([[1.0, 2.0]])
    none: tuple[tuple[int, ...], ...] = ((),) * tasks
    return GraphLayout(
        number, 1, np.zeros(tasks, int), np.ones((1, 2), bool), one, one, np.zeros(1), ((),) * tasks, none,
        none,
    )  # fmt: skip


LINKS = LinkTimes(np.zeros((1, 1)), np.zeros((1, 1)))


def test_each_graph_has_a_plan_of_its_own_and_is_planned_once() -> None:
    memory, workers = empty_memory(), workers_of([0, 1], [[1.0, 2.0]])[0]
    policy = PlanAhead(effort=100)
    policy.lay_out([layout(3, 2), layout(5, 4)], LINKS, workers, system_of(), memory)
    assert memory[GRAPHS] == 2
    rows = [plan_row(memory, graph, place) for graph, count in ((3, 2), (5, 4)) for place in range(count)]
    assert rows == [rows[0] + 2 * at for at in range(6)]
    before = memory.copy()
    policy.lay_out([layout(3, 2)], LINKS, workers, system_of(), memory)
    assert memory.tolist() == before.tolist()


def test_a_task_without_a_plan_goes_where_it_ends_first() -> None:
    memory, workers = empty_memory(), workers_of([0, 1], [[3.0, 2.0]])[0]
    assert PlanAhead().place(task_of(0), workers, system_of(), memory) == 1
    PlanAhead(effort=0).lay_out([layout(0, 4097)], LINKS, workers, system_of(), memory)
    assert memory[GRAPHS] == 0
