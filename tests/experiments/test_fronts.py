"""Comparing the sides of a sweep, with points and a bound worked out by hand."""

from __future__ import annotations

import pytest

from experiments.fronts import Point, compare, front_of, least_seconds
from tests.experiments.test_bounds import CHAIN

POINTS = [
    Point("a", "ours", 11.0, 150.0),
    Point("b", "ours", 14.0, 140.0),
    Point("c", "starpu", 12.0, 170.0),
    Point("d", "starpu", None, None, "died"),
]


def test_the_front_is_what_nobody_beats() -> None:
    assert [point.label for point in front_of(POINTS)] == ["a", "b"]
    assert [point.label for point in front_of(POINTS, "starpu")] == ["c"]


def test_the_best_by_a_deadline_is_compared_with_the_bound_by_it() -> None:
    """The chain takes 130 J at least, of which 100 are the idle machine's."""
    found = compare(POINTS, CHAIN, 13.0)
    assert (found.ours.label, found.starpu.label) == ("a", "c")
    assert found.bound_controllable_j == pytest.approx(30.0, rel=1e-3)
    assert found.ours.over_bound == pytest.approx(50 / 30, rel=1e-3)
    assert found.starpu.over_bound == pytest.approx(70 / 30, rel=1e-3)
    assert compare(POINTS, CHAIN, 20.0).ours.label == "b"
    assert compare(POINTS, CHAIN, 10.5).ours.label is None


def test_hypervolumes_reach_to_twice_the_least_seconds_and_joules() -> None:
    """Below 22 s and 280 J: a dominates 11 * 130, b besides 8 * 10, c 10 * 110."""
    found = compare(POINTS, CHAIN, 13.0)
    assert (found.reference.seconds, found.reference.energy_j) == (22.0, 280.0)
    assert found.ours_hypervolume == pytest.approx(11 * 130 + 8 * 10)
    assert found.starpu_hypervolume == pytest.approx(10 * 110)


def test_where_no_trial_finished_there_is_no_least_makespan() -> None:
    with pytest.raises(ValueError, match="no trial finished: died"):
        least_seconds([POINTS[3]])
