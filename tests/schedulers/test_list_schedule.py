"""What a list schedule takes, against closed forms; and the search, against every schedule of small graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from dahl.starpu.policy import GraphLayout, LinkTimes
from schedulers.list_schedule import ListProblem, list_problem, run_list, search_list, upward_s
from tests.schedulers.bounds.exhaustive import Small, every_schedule, small

NO_LINKS = LinkTimes(np.zeros((1, 1)), np.zeros((1, 1)))
Access = tuple[int, bool, bool]


def problem_of(
    length_s: Sequence[Sequence[float]],
    before: Sequence[tuple[int, ...]],
    *,
    nodes: Sequence[int],
    accesses: Sequence[tuple[Access, ...]] = (),
    data_bytes: Sequence[int] = (0,),
    links: LinkTimes = NO_LINKS,
    times: int = 1,
    before_next: Sequence[tuple[int, ...]] = (),
) -> ListProblem:
    """One kind for each task, a joule a second."""
    lengths = np.array(length_s)
    n = len(lengths)
    layout = GraphLayout(
        0, times, np.arange(n), ~np.isnan(lengths), lengths, lengths, np.array(data_bytes),
        tuple(accesses) or ((),) * n, tuple(before), tuple(before_next) or ((),) * n,
    )  # fmt: skip
    return list_problem(layout, links, nodes)


def ran(problem: ListProblem, place: Sequence[int], rank: Sequence[int]) -> tuple[float, float]:
    return run_list(problem, np.array(place), np.array(rank))


def test_a_worker_runs_what_is_ready_by_rank() -> None:
    """Three free tasks of 1, 2 and 3 s; a fourth of 5 s on the other worker waits for the first of them."""
    problem = problem_of([[1, 1], [2, 2], [3, 3], [5, 5]], [(), (), (), (0,)], nodes=[0, 0])
    assert ran(problem, [0, 0, 0, 1], [4, 3, 2, 1]) == (pytest.approx(6.0), pytest.approx(11.0))
    assert ran(problem, [0, 0, 0, 1], [1, 3, 4, 1])[0] == pytest.approx(3 + 2 + 1 + 5)


def test_data_come_over_a_link_one_after_the_other_while_the_worker_is_busy() -> None:
    """2 s and 1 s per byte: two tasks on the card read 3 bytes each, there at 5 and 10; each runs for 4 s."""
    links = LinkTimes(np.array([[0.0, 2], [2, 0]]), np.array([[0.0, 1], [1, 0]]))
    reads = (((0, True, False),), ((1, True, False),))
    problem = problem_of(
        [[4, 4], [4, 4]], [(), ()], nodes=[0, 1], accesses=reads, data_bytes=[3, 3], links=links
    )
    assert ran(problem, [1, 1], [2, 1])[0] == pytest.approx(14.0)
    assert ran(problem, [0, 1], [2, 1])[0] == pytest.approx(9.0)


def test_what_a_task_writes_has_to_come_from_where_it_ran_and_is_read_there_for_nothing() -> None:
    links = LinkTimes(np.array([[0.0, 2], [2, 0]]), np.zeros((2, 2)))
    handed = (((0, False, True),), ((0, True, False),))
    problem = problem_of(
        [[1, 1], [1, 1]], [(), (0,)], nodes=[0, 1], accesses=handed, data_bytes=[8], links=links
    )
    assert ran(problem, [1, 1], [2, 1])[0] == pytest.approx(2.0)
    assert ran(problem, [1, 0], [2, 1])[0] == pytest.approx(4.0)


def test_repetitions_beyond_the_third_go_on_at_its_pace() -> None:
    """A chain of 1 s and 2 s on two workers; each waits for itself before: 1 + 2 s, and 2 s for each more."""
    problem = problem_of([[1, 1], [2, 2]], [(), (0,)], nodes=[0, 0], times=10, before_next=[(0,), (1,)])
    assert ran(problem, [0, 1], [2, 1]) == (pytest.approx(3 + 9 * 2), pytest.approx(10 * 3.0))


def test_the_upward_rank_is_the_longest_way_in_mean_lengths() -> None:
    problem = problem_of([[1, 3], [2, 2], [4, np.nan]], [(), (0,), (0,)], nodes=[0, 0])
    assert upward_s(problem).tolist() == [6.0, 2.0, 4.0]


def layout_of(case: Small) -> tuple[ListProblem, float]:
    """A small instance of the bounds' tests, without data."""
    graph, figures = case.graph, case.figures
    worker_class = np.repeat(np.arange(2), figures["units"])
    lengths, joules = figures["length_s"][:, worker_class], figures["energy_j"][:, worker_class]
    n = len(graph)
    none: tuple[tuple[int, ...], ...] = ((),) * n
    layout = GraphLayout(
        0, 1, np.array(graph.kinds), ~np.isnan(lengths), lengths, joules, np.zeros(1), ((),) * n,
        graph.before, none,
    )  # fmt: skip
    return list_problem(layout, NO_LINKS, [0] * worker_class.size), figures["static_w"]


def test_the_search_finds_nearly_always_the_best_of_all_schedules_and_never_a_better_one() -> None:
    found = []
    for seed in range(30):
        case = small(seed)
        problem, static_w = layout_of(case)
        schedule = search_list(problem, static_w, np.inf, 2000)
        least_j = every_schedule(case)[:, 0].min()
        joules = schedule.energy_j + static_w * schedule.makespan_s
        assert joules >= least_j * (1 - 1e-9)
        found.append(joules / least_j)
    assert np.quantile(found, 0.9) <= 1 + 1e-9
    assert max(found) < 1.05


def test_a_deadline_costs_joules() -> None:
    """A fast worker for 10 J and one of half the speed for 1 J; two tasks in a row, no static watts."""
    lengths, joules = np.array([[1.0, 2.0]]), np.array([[10.0, 1.0]])
    layout = GraphLayout(
        0, 1, np.zeros(2, int), np.ones((1, 2), bool), lengths, joules, np.zeros(1), ((), ()), ((), (0,)),
        ((), ()),
    )  # fmt: skip
    problem = list_problem(layout, NO_LINKS, [0, 0])
    by_slowdown = [search_list(problem, 0.01, slowdown, 500).energy_j for slowdown in (1.0, 1.5, 2.0)]
    assert by_slowdown == pytest.approx([20.0, 11.0, 2.0])


def test_the_same_search_twice_finds_the_same() -> None:
    problem, static_w = layout_of(small(7))
    one, other = (search_list(problem, static_w, 1.2, 300) for _ in range(2))
    assert one.place.tolist() == other.place.tolist()
    assert one.rank.tolist() == other.rank.tolist()
