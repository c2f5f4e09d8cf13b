"""Energy against time: the bound's convex front, the front of runs, and what a front leaves below it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

FLAT = 1e-3
"""A stretch of the front is straight enough where its middle is, relatively, within this of its chord."""
MOST_HALVINGS = 5


@final
@dataclass(frozen=True, order=True)
class FrontPoint:
    """Seconds and joules of one schedule, or of the bound by that deadline."""

    seconds: float
    energy_j: float


def energy_deadline_front(
    least_energy_j: Callable[[float], FrontPoint], earliest_s: float, latest_s: float
) -> list[FrontPoint]:
    """Return points of E*(D), the least joules by deadline D, from the earliest to the latest deadline.

    ``least_energy_j(D)`` solves the bound for a deadline: its joules, and its own makespan as the seconds. E* is convex
    and does not rise, so a stretch is halved until its middle is on its chord; the chords are never below it.
    """
    if not 0 < earliest_s <= latest_s:
        raise ValueError(f"a front needs 0 < earliest_s <= latest_s, got {earliest_s:g} and {latest_s:g}")
    free = least_energy_j(latest_s)
    first = FrontPoint(earliest_s, least_energy_j(earliest_s).energy_j)
    if free.seconds <= earliest_s * (1 + 1e-9):
        return [first]
    last = FrontPoint(free.seconds, free.energy_j)

    def halve(left: FrontPoint, right: FrontPoint, halvings: int) -> list[FrontPoint]:
        middle_s = (left.seconds + right.seconds) / 2
        middle = FrontPoint(middle_s, least_energy_j(middle_s).energy_j)
        chord_j = (left.energy_j + right.energy_j) / 2
        if halvings == 0 or chord_j - middle.energy_j <= FLAT * abs(chord_j):
            return [middle]
        return [*halve(left, middle, halvings - 1), middle, *halve(middle, right, halvings - 1)]

    return [first, *halve(first, last, MOST_HALVINGS), last]


def pareto_front(points: Sequence[FrontPoint]) -> list[int]:
    """Return the places of the points that no other one beats in seconds or joules without losing in the other.

    Of equal points each is on the front.
    """
    order = sorted(range(len(points)), key=lambda at: points[at])
    front: list[int] = []
    for at in order:
        if not front or points[at].energy_j < points[front[-1]].energy_j or points[at] == points[front[-1]]:
            front.append(at)
    return front


def hypervolume(points: Sequence[FrontPoint], reference: FrontPoint) -> float:
    """Return the area that points dominate up to a reference point, in joule-seconds; larger is better.

    Points that are not better than the reference in both add nothing.
    Source: Zitzler and Thiele, IEEE Transactions on Evolutionary Computation 3(4), 1999.
    """
    inside = [
        point for point in points if point.seconds < reference.seconds and point.energy_j < reference.energy_j
    ]
    area, ceiling_j = 0.0, reference.energy_j
    for at in pareto_front(inside):
        area += (reference.seconds - inside[at].seconds) * (ceiling_j - inside[at].energy_j)
        ceiling_j = inside[at].energy_j
    return area
