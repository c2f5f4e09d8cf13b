"""What is repeated while cores are slow, with speeds of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.core_speed import Steady, gflop_per_s


def steady(speeds: list[float], pauses: list[float]) -> Steady:
    """Twenty probes at full speed, then each of these three times."""
    coming: Iterator[float] = iter([100.0] * 20 + [speed for speed in speeds for _ in range(3)])
    return Steady(lambda: next(coming), tries=3, pause=pauses.append)


def noting(made: list[int], count: int = 3) -> list[Callable[[], None]]:
    return [lambda place=place: made.append(place) for place in range(count)]  # type: ignore[misc]  # a default's type


def test_an_attempt_at_full_speed_is_kept_at_once() -> None:
    made: list[int] = []
    assert steady([99.0, 95.0], []).best_of(noting(made)) == 0
    assert made == [0]


def test_an_attempt_that_ended_slow_is_made_again() -> None:
    made: list[int] = []
    assert steady([99.0, 70.0, 99.0, 99.0], []).best_of(noting(made)) == 1
    assert made == [0, 1]


def test_it_waits_for_cores_that_are_slow() -> None:
    made: list[int] = []
    pauses: list[float] = []
    assert steady([70.0, 70.0, 99.0, 99.0], pauses).best_of(noting(made)) == 0
    assert pauses == [1.0, 1.0]


def test_of_attempts_that_were_all_slow_the_fastest_is_kept_and_counted() -> None:
    made: list[int] = []
    found = steady([99.0, 60.0, 99.0, 80.0, 99.0, 70.0], [])
    assert found.best_of(noting(made)) == 1
    assert (made, found.slow) == ([0, 1, 2], 1)


def test_a_probe_of_two_threads_has_a_rate() -> None:
    assert gflop_per_s(2) > 0
