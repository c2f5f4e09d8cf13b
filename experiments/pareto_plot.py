"""The figure of a sweep: energy against time, both sides' fronts, and the bound's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.fronts import Point, Side, front_of
from schedulers.bounds import FrontPoint

SHOWN = 2.2
"""The axes end at so many times the least seconds and joules found: policies far off would hide the fronts."""
COLOURS = {"ours": "#0b6e99", "starpu": "#c2571a"}
NAMES = {"ours": "this project's", "starpu": "StarPU's"}


def plot(
    points: Sequence[Point], bound: Sequence[FrontPoint], deadline_s: float, title: str, stem: Path
) -> list[Path]:
    """Write ``stem`` as PNG and PDF; returns both paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9.0, 5.5), layout="constrained")
    _draw_bound(axes, bound, points)
    sides: tuple[tuple[Side, str], ...] = (("starpu", "s"), ("ours", "o"))
    for side, marker in sides:
        own = [point.place for point in points if point.place and point.side == side]
        axes.plot(
            [place.seconds for place in own],
            [place.energy_j for place in own],
            marker,
            color=COLOURS[side],
            alpha=0.45,
            markersize=5,
            label=f"{NAMES[side]} policies",
        )
        front = [point.place for point in front_of(points, side) if point.place]
        axes.step(
            [place.seconds for place in front],
            [place.energy_j for place in front],
            where="post",
            color=COLOURS[side],
        )
    axes.axvline(deadline_s, color="0.6", linestyle=":", label=f"deadline {deadline_s:.3g} s")
    _name_front(axes, points)
    axes.set(xlabel="seconds per epoch (simulated)", ylabel="joules per epoch (simulated)", title=title)
    axes.legend(loc="lower left", bbox_to_anchor=(1.0, 0.0), frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".pdf")]
    for path in paths:
        figure.savefig(path, dpi=150, bbox_inches="tight")
    pyplot.close(figure)
    return paths


def _draw_bound(axes: Any, bound: Sequence[FrontPoint], points: Sequence[Point]) -> None:
    places = [point.place for point in points if point.place]
    right = SHOWN * min(place.seconds for place in places)
    top = SHOWN * min(place.energy_j for place in places)
    seconds = [*(point.seconds for point in bound), max(right, bound[-1].seconds)]
    joules = [*(point.energy_j for point in bound), bound[-1].energy_j]
    axes.plot(seconds, joules, color="black", linewidth=1.5, label="bound: no schedule is below")
    axes.fill_between(seconds, joules, 0, color="black", alpha=0.06, linewidth=0)
    axes.axvspan(0, bound[0].seconds, color="black", alpha=0.06, linewidth=0)
    axes.set_xlim(0, right)
    axes.set_ylim(0, top)


def _name_front(axes: Any, points: Sequence[Point]) -> None:
    """Number what is on the common front, by its seconds, and name it beside the axes."""
    found: dict[FrontPoint, list[Point]] = {}
    for point in front_of(points):
        assert point.place is not None
        found.setdefault(point.place, []).append(point)
    for number, (place, equals) in enumerate(found.items(), start=1):
        more = f" and {len(equals) - 1} more" if len(equals) > 1 else ""
        colour = COLOURS[equals[0].side]
        at = (place.seconds, place.energy_j)
        below = 14 * (number % 2)  # neighbours on opposite sides
        axes.annotate(
            str(number), at, xytext=(5, 4 - below), textcoords="offset points", fontsize=8, color=colour
        )
        text = f"{number}  {equals[0].label}{more}"
        axes.text(1.02, 1.0 - 0.05 * number, text, transform=axes.transAxes, fontsize=8, color=colour)
    axes.text(1.02, 1.0, "front of all", transform=axes.transAxes, fontsize=8)
