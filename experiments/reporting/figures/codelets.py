"""Where each codelet ran: busy seconds by worker, or by kind of worker where there are many."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from experiments.reporting.figures.style import COLOURS, Size, legend_beside, new_figure, say_quality
from experiments.runs import Run

_MOST_WORKERS = len(COLOURS)


def draw(run: Run, size: Size) -> Figure:
    """All epochs of a run with `tasks`."""
    seconds, counts = by_place(run.tasks, run.environment["starpu"]["workers"])
    figure = new_figure(size, 1.5 + 0.2 * len(seconds))
    axes = figure.subplots()
    left = pd.Series(0.0, index=seconds.index)
    for at, place in enumerate(seconds.columns):
        axes.barh(
            seconds.index,
            seconds[place],
            left=left,
            color=COLOURS[at % len(COLOURS)],
            label=place,
            height=0.7,
        )
        left += seconds[place]
    for name, total, count in zip(left.index, left, counts.reindex(left.index), strict=True):
        text = f"{count:,}"
        axes.annotate(text, (total, name), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.02)
    axes.set_xlim(left=0)
    kind = "simulated" if run.summary["simulated"] else "measured"
    axes.set(xlabel=f"busy time (s, {kind})", ylabel="codelet")
    axes.grid(visible=False, axis="y")
    legend_beside(figure, size, *axes.get_legend_handles_labels())
    say_quality(figure, size, None, f"All epochs. Beside the bars: number of tasks. Times are {kind}.")
    return figure


def by_place(tasks: pd.DataFrame, workers: Sequence[str]) -> tuple[pd.DataFrame, pd.Series]:
    """Busy seconds of the epochs' tasks by codelet and worker, and tasks by codelet, longest first."""
    own = tasks[tasks["window"] == "epoch"]
    names = [worker.split("(")[0].strip() for worker in workers]
    if len(names) > _MOST_WORKERS:
        names = [re.sub(r"\s*[\d.]+$", "", name) + " workers" for name in names]
    place = own["worker"].map(dict(enumerate(names)))
    lengths = (own["end_s"] - own["start_s"]).groupby([own["codelet"], place]).sum().unstack().fillna(0.0)
    order = lengths.sum(axis=1).sort_values(ascending=False).index
    columns = [name for name in dict.fromkeys(names) if name in lengths]
    return lengths.loc[order, columns], own["codelet"].value_counts()
