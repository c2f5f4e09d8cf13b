"""The convex front of the bound, the front of points, and the area below a reference, against closed forms."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulers.bounds import FrontPoint, energy_deadline_front, hypervolume, mixed_bound, pareto_front
from schedulers.bounds.graph import Graph


def by_deadline(deadline_s: float) -> FrontPoint:
    """Ten tasks on one fast (1 s, 3 J) and one slow worker (2 s, 1 J), 0.01 W static."""
    bound = mixed_bound(
        [Graph([0] * 10)], [[1.0, 2.0]], [[3.0, 1.0]], [1, 1], static_w=0.01, deadline_s=deadline_s
    )
    return FrontPoint(bound.makespan_s, bound.energy_j)


def test_a_front_is_that_of_its_closed_form() -> None:
    """By D the slow worker does D / 2 tasks and the fast one the rest: 30 - 0.99 D joules, from 20/3 s to 20 s."""
    front = energy_deadline_front(by_deadline, 20 / 3, 1e6)
    assert front[0].seconds == pytest.approx(20 / 3)
    assert front[-1].seconds == pytest.approx(20.0)
    for point in front:
        assert point.energy_j == pytest.approx(30 - 0.99 * point.seconds, rel=1e-4)


def test_a_bend_is_found() -> None:
    def bent(deadline_s: float) -> FrontPoint:
        seconds = min(deadline_s, 9.0)
        return FrontPoint(seconds, max(10 - 4 * (seconds - 1), 5 - 0.5 * (seconds - 2), 2.0))

    front = energy_deadline_front(bent, 1.0, 100.0)
    for left, right in itertools.pairwise(front):
        middle = bent((left.seconds + right.seconds) / 2)
        assert (left.energy_j + right.energy_j) / 2 - middle.energy_j < 0.05 * middle.energy_j
    assert [p.energy_j for p in front] == sorted((p.energy_j for p in front), reverse=True)


def test_a_front_without_room_is_one_point() -> None:
    assert energy_deadline_front(lambda d: FrontPoint(1.0, 5.0), 1.0, 10.0) == [FrontPoint(1.0, 5.0)]
    with pytest.raises(ValueError, match="0 < earliest_s <= latest_s"):
        energy_deadline_front(by_deadline, 2.0, 1.0)


points_strategy = st.lists(
    st.builds(FrontPoint, st.integers(0, 9).map(float), st.integers(0, 9).map(float)), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(points_strategy)
def test_a_point_is_on_the_front_unless_another_beats_it(points: list[FrontPoint]) -> None:
    def beaten(p: FrontPoint) -> bool:
        return any(q.seconds <= p.seconds and q.energy_j <= p.energy_j and q != p for q in points)

    assert sorted(pareto_front(points)) == [at for at, p in enumerate(points) if not beaten(p)]


@settings(max_examples=60, deadline=None)
@given(points_strategy)
def test_a_hypervolume_is_the_number_of_unit_squares_that_a_point_dominates(points: list[FrontPoint]) -> None:
    squares = sum(any(p.seconds <= x and p.energy_j <= y for p in points) for x in range(8) for y in range(8))
    assert hypervolume(points, FrontPoint(8.0, 8.0)) == squares
