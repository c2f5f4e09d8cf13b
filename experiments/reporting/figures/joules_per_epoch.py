"""Joules of each epoch, by variant."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.reporting.figures.style import (
    Size,
    colour,
    in_lines,
    joined,
    legend_beside,
    legend_in,
    marker,
    new_figure,
    say_quality,
    scale_axis,
)


def draw(blocks: pd.DataFrame, labels: Sequence[str], size: Size) -> Figure:
    """`blocks`: `label`, `epoch`, `last_epoch`, `joules_per_epoch`, `quality`; a row per block of epochs and run.

    `labels` are all variants of the setting, so that one has the same colour on every figure.
    Of several runs the median by epoch is shown, with all between the lowest and the highest shaded.
    """
    if blocks["last_epoch"].max() == 1:
        return _draw_single(blocks, labels, size)
    figure = new_figure(
        size, max(3.6, legend_in(labels) + 0.6) if size == "wide" else 3.2 + legend_in(labels)
    )
    axes = figure.subplots()
    for place, label in enumerate(labels):
        own = blocks[blocks["label"] == label]
        if own.empty:
            continue
        by_epoch = own.groupby("last_epoch")["joules_per_epoch"]
        middle, low, high = by_epoch.median(), by_epoch.min(), by_epoch.max()
        axes.fill_between(middle.index, low, high, color=colour(place), alpha=0.12, linewidth=0)
        axes.plot(
            middle.index,
            middle,
            color=colour(place),
            marker=marker(place),
            markersize=4,
            linewidth=1,
            label=label,
        )
    quality = joined(blocks["quality"])
    axes.set(xlabel="epoch", ylabel=f"energy of the epoch (J, {quality})")
    scale_axis(axes, "y", blocks["joules_per_epoch"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_beside(figure, size, *axes.get_legend_handles_labels())
    more = "Epochs measured as one block are shown at its end, each with the mean."
    several = bool((blocks["last_epoch"] > blocks["epoch"]).any())
    shaded = (
        "Lines: medians; shaded: lowest to highest run."
        if blocks.groupby("label")["run"].nunique().max() > 1
        else ""
    )
    say_quality(figure, size, quality, " ".join(filter(None, (shaded, more if several else ""))))
    return figure


def _draw_single(blocks: pd.DataFrame, labels: Sequence[str], size: Size) -> Figure:
    """Runs of one epoch: a row for each variant."""
    names = [in_lines(label, 34 if size == "wide" else 18) for label in labels]
    figure = new_figure(size, 1.3 + 0.1 * len(names) + 0.14 * sum(name.count("\n") + 1 for name in names))
    axes = figure.subplots()
    for place, label in enumerate(labels):
        own = blocks.loc[blocks["label"] == label, "joules_per_epoch"]
        axes.plot(
            own, [place] * len(own), marker(place), color=colour(place), alpha=0.6, markersize=5, linewidth=0
        )
        if len(own) > 1:
            axes.plot([own.median()] * 2, [place - 0.3, place + 0.3], color=colour(place), linewidth=2)
    quality = joined(blocks["quality"])
    scale_axis(axes, "x", blocks["joules_per_epoch"])
    axes.set_yticks(range(len(labels)), names)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(f"energy of the epoch (J, {quality})")
    several = blocks.groupby("label")["run"].nunique().max() > 1
    if several:
        legend_beside(figure, size, [Line2D([], [], color="black", linewidth=2)], ["median"])
    say_quality(figure, size, quality)
    return figure
