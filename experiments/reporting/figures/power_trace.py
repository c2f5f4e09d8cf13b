"""Watts over a run, with its epochs and the idle baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.reporting.figures.style import COLOURS, Size, legend_beside, new_figure, say_quality
from experiments.reporting.watts import Steps, idle_watts, spans, total_steps
from experiments.runs import Run

_SHADES = {"compilation": "#fdf0d5", "evaluation": "#e8e8e8"}
_MOST_LABELS: dict[Size, int] = {"wide": 24, "narrow": 10}


def draw(run: Run, size: Size) -> Figure:
    """The trace of one run, which must have `power` and `windows`."""
    figure = new_figure(size, 3.2 if size == "wide" else 3.4)
    axes = figure.subplots()
    channels, total = total_steps(run)
    zero_s = float(spans(run)["start_s"].min())
    _shade(axes, run, zero_s, size)
    draw_steps(axes, total, zero_s, "black", "all", 1.4)
    if len(channels) > 1:
        for place, (name, steps) in enumerate(channels.items()):
            draw_steps(axes, steps, zero_s, COLOURS[place % len(COLOURS)], name, 0.9)
    idle_w = idle_watts(run)
    if idle_w is not None:
        axes.axhline(idle_w, color="#444444", linestyle="--", linewidth=1, label="idle machine")
    quality = run.summary["energy_quality"]
    axes.set(xlabel="time (s)", ylabel=f"power (W, {quality})")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.grid(visible=False, axis="x")
    legend_beside(figure, size, *axes.get_legend_handles_labels())
    say_quality(figure, size, quality, "Above: epochs. Shaded: compilation and evaluations.")
    return figure


def draw_steps(axes: Axes, steps: Steps, zero_s: float, tone: str, label: str, width: float) -> None:
    """Watts as steps; what is not known is a gap."""
    if steps.watts.size:
        watts = np.append(steps.watts, steps.watts[-1])
        axes.step(steps.edges_s - zero_s, watts, where="post", color=tone, linewidth=width, label=label)


def _shade(axes: Axes, run: Run, zero_s: float, size: Size) -> None:
    windows: Any = spans(run)
    for kind, shade in _SHADES.items():
        for row in windows[windows["window"] == kind].itertuples():
            axes.axvspan(row.start_s - zero_s, row.end_s - zero_s, color=shade, linewidth=0)
    blocks = windows[windows["window"] == "epoch"]
    every = -(-len(blocks) // _MOST_LABELS[size])
    for number, row in enumerate(blocks.itertuples()):
        for at_s in (row.start_s, row.end_s):
            axes.axvline(at_s - zero_s, color="#bbbbbb", linewidth=0.5, zorder=0)
        if number % every == 0:
            text = str(row.epoch) if row.epoch == row.last_epoch else f"{row.epoch}–{row.last_epoch}"
            middle_s = (row.start_s + row.end_s) / 2 - zero_s
            axes.text(
                middle_s,
                1.01,
                text,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=7,
            )
