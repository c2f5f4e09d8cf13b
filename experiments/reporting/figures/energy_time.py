"""Energy against time: every variant with its spread, and the front that none of them beats."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.reporting.figures.style import (
    Size,
    colour,
    joined,
    label_points,
    legend_beside,
    legend_in,
    marker,
    new_figure,
    say_quality,
    scale_axis,
    spread_bars,
)
from experiments.reporting.statistics import front

_X, _Y = "seconds_per_epoch", "joules_per_epoch"


def draw(variants: pd.DataFrame, runs: pd.DataFrame, size: Size) -> Figure:
    """`variants` are one setting's rows of `statistics.medians`, `runs` those of `measures.measured`."""
    known = variants.dropna(subset=[_X, _Y]).reset_index(drop=True)
    count = len(known)
    above_in = legend_in(known["label"])
    height_in = max(4.0, above_in + 0.8) if size == "wide" else 3.6 + above_in
    figure = new_figure(size, height_in)
    axes = figure.subplots()
    for place, row in known.iterrows():
        tone = colour(int(str(place)))
        own = runs[runs["label"] == row["label"]]
        axes.plot(own[_X], own[_Y], ".", color=tone, alpha=0.3, markersize=4)
        axes.errorbar(
            row[_X],
            row[_Y],
            xerr=spread_bars(row, _X),
            yerr=spread_bars(row, _Y),
            fmt=marker(int(str(place))),
            color=tone,
            markersize=6,
            linewidth=1,
        )
    best = front(known)
    axes.step(best[_X], best[_Y], where="post", color="#444444", linewidth=1, zorder=1)
    _draw_bound(axes, runs)
    axes.margins(0.12)
    axes.autoscale_view()
    scale_axis(axes, "x", runs[_X])
    scale_axis(axes, "y", runs[_Y])
    quality = joined(known["quality"])
    axes.set(xlabel="time per epoch (s)", ylabel=f"energy per epoch (J, {quality})")
    _add_legend(figure, size, known, has_bound=bool(axes.get_legend_handles_labels()[1]))
    say_quality(figure, size, quality, _words(variants, known))
    places = list(zip(known[_X], known[_Y], strict=True))
    label_points(axes, places, [str(n) for n in range(1, count + 1)], [colour(n) for n in range(count)])
    return figure


def _draw_bound(axes: Axes, runs: pd.DataFrame) -> None:
    """The joules that no schedule beats, where simulated runs know them and agree."""
    bounds = (runs[_Y] / runs["bound_ratio"]).dropna()
    if len(bounds) and bounds.max() - bounds.min() <= 1e-6 * bounds.max():
        axes.axhline(bounds.iloc[0], color="black", linestyle=":", linewidth=1, label="bound")


def _add_legend(figure: Figure, size: Size, known: pd.DataFrame, *, has_bound: bool) -> None:
    handles = [
        Line2D([], [], linestyle="", marker=marker(n), color=colour(n), markersize=5)
        for n in range(len(known))
    ]
    labels = [f"{n}  {label}" for n, label in enumerate(known["label"], start=1)]
    handles.append(Line2D([], [], color="#444444", linewidth=1))
    labels.append("front")
    if has_bound:
        handles.append(Line2D([], [], color="black", linestyle=":", linewidth=1))
        labels.append("bound")
    legend_beside(figure, size, handles, labels)


def _words(variants: pd.DataFrame, known: pd.DataFrame) -> str:
    kinds = set(known["spread"].dropna())
    said = {
        "interval": "Bars: 95 % bootstrap intervals of the medians.",
        "range": "Bars: lowest and highest.",
    }
    words = [text for kind, text in said.items() if kind in kinds]
    if variants["bound_ratio"].notna().any():
        words.append("Bound: the joules that no schedule beats.")
    if len(known) < len(variants):
        words.append(f"{len(variants) - len(known)} without joules are not shown.")
    return " ".join(["Large: medians; small: runs.", *words])
