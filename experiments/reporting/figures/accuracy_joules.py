"""Test accuracy against the joules of training so far."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from experiments.reporting.figures.style import (
    Size,
    colour,
    joined,
    legend_beside,
    legend_in,
    marker,
    new_figure,
    say_quality,
)


def draw(courses: pd.DataFrame, labels: Sequence[str], asked: float | None, size: Size) -> Figure:
    """`courses`: `label`, `joules`, `accuracy`, `quality`; a row per epoch of one run for each variant.

    `labels` are all variants of the setting, `asked` is the accuracy that energy to accuracy counts up to.
    """
    figure = new_figure(
        size, max(3.6, legend_in(labels) + 0.6) if size == "wide" else 3.2 + legend_in(labels)
    )
    axes = figure.subplots()
    for place, label in enumerate(labels):
        own = courses[courses["label"] == label]
        if own.empty:
            continue
        axes.plot(
            own["joules"],
            own["accuracy"],
            color=colour(place),
            marker=marker(place),
            markersize=4,
            linewidth=1,
            label=label,
        )
    if asked is not None:
        axes.axhline(asked, color="#444444", linestyle=":", linewidth=1, label=f"accuracy {asked:.2f}")
    quality = joined(courses["quality"])
    axes.set_xlim(left=0)
    low, high = axes.get_ylim()
    axes.set_ylim(low, min(high, 1 + 0.03 * (1 - low)))  # no accuracy is above 1; its marker has a half
    axes.set(xlabel=f"energy of training so far (J, {quality})", ylabel="test accuracy (share of images)")
    legend_beside(figure, size, *axes.get_legend_handles_labels())
    say_quality(figure, size, quality, "Of each the run with the median joules; a point per epoch.")
    return figure
