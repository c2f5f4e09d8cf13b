"""The mixed bound against every schedule of random small graphs, closed forms, and the area bound."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from schedulers.bounds import (
    BoundError,
    Graph,
    Version,
    area_bound,
    least_graph_makespan_s,
    least_makespan_s,
    mixed_bound,
)
from tests.schedulers.bounds.exhaustive import Small, every_schedule, every_schedule_with_copies, small

NEVER_ABOVE = 1 + 3e-6
SEEDS = range(300)


def bounds(case: Small, **options: object) -> tuple[float, float]:
    """Least joules by the area bound and by the mixed bound."""
    counts = case.graph.counts(3)
    there = counts > 0
    figures = {**case.figures, **options}
    area = {key: value[there] if key in ("length_s", "energy_j") else value for key, value in figures.items()}
    return (
        area_bound(counts[there], **area).energy_j,
        mixed_bound([case.graph], **figures).energy_j,
    )


def check(case: Small, seed: int) -> None:
    """Hold the bounds below the best of all schedules: free, by a deadline, parking, under a cap."""
    found = every_schedule(case)
    for place, options in ((0, {}), (1, {"parking_w": case.parking_w})):
        area_j, mixed_j = bounds(case, **options)
        assert area_j <= mixed_j * NEVER_ABOVE
        assert mixed_j <= found[:, place].min() * NEVER_ABOVE
    deadline_s = np.quantile(found[:, 2], 0.2)
    in_time_j = found[found[:, 2] <= deadline_s, 0].min()
    assert bounds(case, deadline_s=deadline_s)[1] <= in_time_j * NEVER_ABOVE
    assert least_graph_makespan_s([case.graph], *(case.figures[k] for k in ("length_s", "units"))) <= (
        found[:, 2].min() * NEVER_ABOVE
    )
    moving = every_schedule(case, apart=True)
    deadline_s = np.quantile(moving[:, 2], 0.1)
    in_time_j = moving[moving[:, 2] <= deadline_s, 0].min()
    with_transfers = mixed_bound([case.graph], **case.figures, deadline_s=deadline_s, apart=[False, True])
    assert with_transfers.energy_j <= in_time_j * NEVER_ABOVE
    copied = every_schedule_with_copies(case)
    handing_on = replace(case.graph, versions=case.versions)
    for deadline_s in (np.inf, np.quantile(copied[:, 1], 0.1)):
        in_time_j = copied[copied[:, 1] <= deadline_s, 0].min()
        with_copies = mixed_bound([handing_on], **case.figures, deadline_s=deadline_s, apart=[False, True])
        assert with_copies.energy_j <= in_time_j * NEVER_ABOVE
    cap_w = case.figures["static_w"] + np.random.default_rng(seed).uniform(5.0, 15.0)
    kept = every_schedule(case, cap_w)
    if len(kept):
        assert bounds(case, cap_w=cap_w)[1] <= kept[:, 0].min() * NEVER_ABOVE


@pytest.mark.parametrize("seed", SEEDS)
def test_no_schedule_of_a_graph_is_below_it(seed: int) -> None:
    check(small(seed), seed)


@pytest.mark.parametrize("seed", range(30))
def test_no_schedule_of_repeated_graphs_is_below_it(seed: int) -> None:
    """Two repetitions of three tasks, and edges from the first to the second: six tasks in all orders."""
    check(small(seed, tasks=3, repeats=2), seed)


def test_a_chain_takes_the_sum_of_its_fastest_lengths() -> None:
    chain = Graph([0, 1, 0], [(0, 1), (1, 2)])
    assert least_graph_makespan_s([chain], [[1.0, 4.0], [3.0, 2.0]], [2, 2]) == pytest.approx(4.0, rel=1e-5)


def test_a_chain_through_all_repetitions_takes_all_of_them() -> None:
    """Area alone would put the 10 repetitions of 2 s on 4 workers: 5 s instead of 20."""
    turns = Graph([0, 0], [(0, 1)], [(1, 0)], repeats=10)
    assert least_makespan_s([20], [[1.0]], [4]) == pytest.approx(5.0)
    assert least_graph_makespan_s([turns], [[1.0]], [4]) == pytest.approx(20.0, rel=1e-5)


def test_what_lies_between_two_tasks_has_to_fit_between_them() -> None:
    """Fork and join twice: 1 + 5/2 + 1 + 5/2 + 1 s on two workers; area says 13 / 2, the longest way 5."""
    kinds, edges = [0] * 13, [(0, i) for i in range(1, 6)] + [(i, 6) for i in range(1, 6)]
    edges += [(6, i) for i in range(7, 12)] + [(i, 12) for i in range(7, 12)]
    assert least_graph_makespan_s([Graph(kinds, edges)], [[1.0]], [2]) == pytest.approx(8.0, rel=1e-5)


def test_a_deadline_buys_speed_on_the_longest_way_only() -> None:
    """Chain of 2 beside a free task; class 0: 1 s, 3 J; class 1: 2 s, 1 J. By 3 s one half of the chain is fast."""
    graph = Graph([0, 0, 0], [(0, 1)])
    figures = {"length_s": [[1.0, 2.0]], "energy_j": [[3.0, 1.0]], "units": [9, 9], "static_w": 0.0}
    assert mixed_bound([graph], **figures).energy_j == pytest.approx(3.0)
    assert mixed_bound([graph], **figures, deadline_s=3.0).energy_j == pytest.approx(5.0, rel=1e-5)


def test_what_comes_before_a_task_has_to_fit_before_it() -> None:
    """Six tasks, a join, six tasks on two workers: 3 + 1 + 3 s."""
    edges = [(i, 6) for i in range(6)] + [(6, i) for i in range(7, 13)]
    assert least_graph_makespan_s([Graph([0] * 13, edges)], [[1.0]], [2]) == pytest.approx(7.0, rel=1e-5)


def test_graphs_share_the_workers() -> None:
    graphs = [Graph([0], repeats=3), Graph([1])]
    assert least_graph_makespan_s(graphs, [[2.0], [4.0]], [2]) == pytest.approx(5.0)


def test_what_moves_between_memories_comes_later() -> None:
    """A task for class 0 only, 1 s, then one for class 1 only, 1 s, and 2 s to move what it reads."""
    graph = Graph([0, 1], [(0, 1)], transfer_s=[2.0])
    lengths = [[1.0, math.nan], [math.nan, 1.0]]
    assert least_graph_makespan_s([graph], lengths, [1, 1]) == pytest.approx(2.0, rel=1e-5)
    assert least_graph_makespan_s([graph], lengths, [1, 1], apart=[False, True]) == pytest.approx(
        4.0, rel=1e-5
    )
    turns = Graph([0, 1], [(0, 1)], [(1, 0)], 10, [2.0], [3.0])
    there_and_back_s = least_graph_makespan_s([turns], lengths, [1, 1], apart=[False, True])
    assert there_and_back_s == pytest.approx(10 * (1 + 2 + 1) + 9 * 3, rel=1e-5)


def test_copies_take_joules_and_the_time_of_a_link() -> None:
    """A task on class 0 only hands two versions on, each to a task on class 1 only: 6 s of the link, 10 J.

    Without copies the two tasks of 1 s would end at 1 + 2.
    """
    versions = [Version(0, (1,), (), 3.0, 5.0), Version(0, (2,), (), 3.0, 5.0)]
    graph = Graph([0, 1, 1], [(0, 1), (0, 2)], versions=versions)
    figures = {
        "length_s": [[1.0, math.nan], [math.nan, 1.0]], "energy_j": [[0.0, 0.0]] * 2, "units": [1, 1],
        "static_w": 2.0, "apart": [False, True],
    }  # fmt: skip
    bound = mixed_bound([graph], **figures)
    assert (bound.makespan_s, bound.energy_j) == (pytest.approx(6.0), pytest.approx(2 * 6 + 2 * 5))
    assert mixed_bound([replace(graph, versions=())], **figures).energy_j == pytest.approx(2 * 3)


def test_a_copy_serves_all_readers_in_a_memory() -> None:
    graph = Graph([0, 1, 1], [(0, 1), (0, 2)], versions=[Version(0, (1, 2), (), 0.0, 5.0)])
    figures = {
        "length_s": [[1.0, math.nan], [math.nan, 1.0]], "energy_j": [[0.0, 0.0]] * 2, "units": [1, 1],
        "static_w": 0.0, "apart": [False, True],
    }  # fmt: skip
    assert mixed_bound([graph], **figures).energy_j == pytest.approx(5.0)


def test_parking_takes_the_watts_of_idle_workers_off() -> None:
    """One task of 2 s and 6 J on one of two workers that idle at 3 W and park at 1: 6 + 2 * (10 + 6) - 2 * 2."""
    figures = {"length_s": [[2.0]], "energy_j": [[6.0]], "units": [2], "static_w": 16.0}
    assert mixed_bound([Graph([0])], **figures).energy_j == pytest.approx(38.0)
    assert mixed_bound([Graph([0])], **figures, parking_w=[2.0]).energy_j == pytest.approx(34.0)
    cut_in_two_j = 6.0 + 1.0 * 16.0  # both are busy for 1 s, so nobody parks
    assert area_bound([1], **figures, parking_w=[2.0]).energy_j == pytest.approx(cut_in_two_j)


def test_a_cap_slows_down() -> None:
    """Four tasks of 1 s and 10 J, 5 W static, 25 W at most: two at a time, so 2 s instead of 1."""
    figures = {"length_s": [[1.0]], "energy_j": [[10.0]], "units": [4], "static_w": 5.0}
    for bound in (
        area_bound([4], **figures, cap_w=25.0),
        mixed_bound([Graph([0] * 4)], **figures, cap_w=25.0),
    ):
        assert bound.makespan_s == pytest.approx(2.0)
        assert bound.energy_j == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline_s": 1.9}, r"deadline_s=1.9 is before the least makespan of these graphs, 2 s"),
        ({"cap_w": 14.0}, r"cap_w=14 rules out kind 0 of the tasks, which alone takes the machine to 15 W"),
        ({"cap_w": 15.0, "deadline_s": 2.5}, r"within deadline_s=2.5 under cap_w=15; raise one"),
        ({"parking_w": [6.0]}, r"at most static_w=5, got \[6.0\]"),
        ({"cap_w": math.nan}, "cap_w must be above 0, got nan"),
    ],
)
def test_what_no_schedule_can_keep_is_refused_with_the_figure(
    options: dict[str, object], message: str
) -> None:
    graph = Graph([0, 0, 0], [(0, 1)])
    with pytest.raises(ValueError, match=message):
        mixed_bound([graph], [[1.0]], [[10.0]], [2], static_w=5.0, **options)


def test_a_kind_without_a_class_is_refused() -> None:
    with pytest.raises(BoundError, match="no worker class can run kind 1"):
        mixed_bound([Graph([0, 1])], [[1.0], [math.nan]], [[1.0], [1.0]], [1], static_w=0.0)


def test_edges_must_lead_forward() -> None:
    with pytest.raises(ValueError, match="edge 1 -> 0"):
        Graph([0, 0], [(1, 0)])


def test_the_width_is_the_most_tasks_that_can_run_at_once() -> None:
    assert Graph([0] * 4, [(0, 1), (0, 2), (1, 3), (2, 3)]).width() == 2
    assert Graph([0] * 5).width() == 5
    assert Graph([0] * 3, [(0, 1), (1, 2)]).width() == 1
