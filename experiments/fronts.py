"""Points of a sweep, the fronts of this project's and of StarPU's policies, and how far both are from the bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from experiments.bounds import EpochWork
from schedulers.bounds import FrontPoint, hypervolume, pareto_front

Side = Literal["ours", "starpu"]

REFERENCE = 2.0
"""The hypervolume counts what takes less than so many times the least seconds and the least joules found."""


@final
@dataclass(frozen=True)
class Point:
    """One policy with its parameters: seconds and joules of an epoch; None where its trial did not finish."""

    label: str
    side: Side
    seconds: float | None
    joules: float | None
    error: str | None = None

    @property
    def place(self) -> FrontPoint | None:
        """Where it is; None where that is not known."""
        if self.seconds is None or self.joules is None:
            return None
        return FrontPoint(self.seconds, self.joules)


@final
@dataclass(frozen=True)
class Best:
    """The fewest joules by a deadline: what took them, and how many times the bound's they are, controllable."""

    label: str | None
    joules: float | None
    over_bound: float | None


@final
@dataclass(frozen=True)
class Comparison:
    """Both sides by one deadline, and the areas that their fronts dominate."""

    deadline_s: float
    bound_j: float
    bound_controllable_j: float
    ours: Best
    starpu: Best
    ours_hypervolume: float
    starpu_hypervolume: float
    reference: FrontPoint


def front_of(points: Sequence[Point], side: Side | None = None) -> list[Point]:
    """The points that no other one of the side (None: of all) beats, by their seconds."""
    known = [point for point in points if point.place and side in (None, point.side)]
    return [known[at] for at in pareto_front([point.place for point in known if point.place])]


def least_seconds(points: Sequence[Point]) -> float:
    """The least makespan found by any policy. Raises ValueError where no trial finished."""
    seconds = [point.place.seconds for point in points if point.place]
    if not seconds:
        raise ValueError(f"no trial finished: {points[0].error if points else 'none was asked for'}")
    return min(seconds)


def compare(points: Sequence[Point], work: EpochWork, deadline_s: float) -> Comparison:
    """Compare the sides by a deadline, against the mixed bound for the same deadline."""
    bound_j = work.least(deadline_s).energy_j
    known = [point.place for point in points if point.place]
    reference = FrontPoint(
        REFERENCE * min(place.seconds for place in known), REFERENCE * min(place.energy_j for place in known)
    )
    return Comparison(
        deadline_s,
        bound_j,
        work.controllable_j(bound_j),
        best_by(points, "ours", work, deadline_s, bound_j),
        best_by(points, "starpu", work, deadline_s, bound_j),
        _area(points, "ours", reference),
        _area(points, "starpu", reference),
        reference,
    )


def best_by(points: Sequence[Point], side: Side, work: EpochWork, deadline_s: float, least_j: float) -> Best:
    """The fewest joules of a side by a deadline, over ``least_j`` in controllable joules."""
    in_time = [
        (point.place.energy_j, point.label)
        for point in points
        if point.place and point.side == side and point.place.seconds <= deadline_s * (1 + 1e-9)
    ]
    if not in_time:
        return Best(None, None, None)
    joules, label = min(in_time)
    least = work.controllable_j(least_j)
    return Best(label, joules, work.controllable_j(joules) / least if least > 0 else None)


def _area(points: Sequence[Point], side: Side, reference: FrontPoint) -> float:
    return hypervolume([point.place for point in points if point.place and point.side == side], reference)
