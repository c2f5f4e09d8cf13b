"""Which task ran on which worker when, with the power below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.reporting.figures.power_trace import draw_steps
from experiments.reporting.figures.style import COLOURS, OTHERS, Size, legend_beside, new_figure, say_quality
from experiments.reporting.watts import idle_watts, total_steps
from experiments.runs import Run

TASKS_PER_WORKER = 150
LEAST_SHOWN = 400
MOST_SHOWN = 4000
"""More bars than these cannot be told apart."""


def draw(run: Run, size: Size) -> Figure:
    """The last epoch of a run with `tasks`, or as much of its start as can be told apart."""
    names = run.environment["starpu"]["workers"]
    tasks, words = stretch(run.tasks, min(MOST_SHOWN, max(LEAST_SHOWN, TASKS_PER_WORKER * len(names))))
    rows_in = max(0.9, min(4.5, 0.22 * len(names)))
    tones = codelet_colours(tasks)
    legend_in = 0.17 * min(len(tones), len(COLOURS) + 1) if size == "narrow" else 0.0
    figure = new_figure(size, rows_in + 2.6 + legend_in)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[rows_in, 1.1])
    unit, scale = ("ms", 1e3) if tasks["end_s"].max() - tasks["start_s"].min() < 1 else ("s", 1.0)
    zero_s = float(tasks["start_s"].min())
    legend = _draw_tasks(above, tasks, tones, zero_s, scale)
    above.set_yticks(range(len(names)), _short(names))
    above.set_ylim(len(names) - 0.4, -0.6)
    above.set_ylabel("worker")
    above.grid(visible=False)
    _draw_power(below, run, zero_s, scale, float(tasks["end_s"].max()))
    below.set_xlabel(f"time since the start of the stretch ({unit})")
    legend_beside(figure, size, legend, [str(patch.get_label()) for patch in legend])
    times = "Times are simulated." if run.summary["simulated"] else "Times are measured."
    say_quality(figure, size, run.summary["energy_quality"], f"{words} {times}")
    return figure


def stretch(tasks: pd.DataFrame, most: int) -> tuple[pd.DataFrame, str]:
    """The tasks to show, and in words which they are."""
    epochs = tasks[tasks["window"] == "epoch"]
    last = int(epochs["epoch"].max()) if len(epochs) else 0
    own = (epochs[epochs["epoch"] == last] if len(epochs) else tasks).sort_values("start_s")
    if len(own) <= most:
        return own, f"Epoch {last}, {len(own)} tasks."
    return own.head(most), f"The first {most:,} of the {len(own):,} tasks of epoch {last}."


def codelet_colours(tasks: pd.DataFrame) -> dict[str, str]:
    """A colour for each of the codelets that took most time, one for all others."""
    seconds = (tasks["end_s"] - tasks["start_s"]).groupby(tasks["codelet"]).sum().sort_values(ascending=False)
    return {str(name): COLOURS[at] if at < len(COLOURS) else OTHERS for at, name in enumerate(seconds.index)}


def _draw_tasks(
    axes: Axes, tasks: pd.DataFrame, tones: Mapping[str, str], zero_s: float, scale: float
) -> list[Patch]:
    left = (tasks["start_s"].to_numpy() - zero_s) * scale
    right = (tasks["end_s"].to_numpy() - zero_s) * scale
    worker = tasks["worker"].to_numpy(np.float64)
    corners = np.stack(
        [
            np.stack([left, worker - 0.4], axis=1),
            np.stack([right, worker - 0.4], axis=1),
            np.stack([right, worker + 0.4], axis=1),
            np.stack([left, worker + 0.4], axis=1),
        ],
        axis=1,
    )
    faces = [tones[name] for name in tasks["codelet"]]
    axes.add_collection(PolyCollection(list(corners), facecolors=faces, edgecolors="none", rasterized=True))
    axes.set_xlim(0, float(right.max()))
    patches = [Patch(color=tone, label=name) for name, tone in tones.items() if tone != OTHERS]
    rest = sum(tone == OTHERS for tone in tones.values())
    return [*patches, Patch(color=OTHERS, label=f"{rest} others")] if rest else patches


def _draw_power(axes: Axes, run: Run, zero_s: float, scale: float, end_s: float) -> None:
    quality = run.summary["energy_quality"]
    axes.set_ylabel(f"power (W,\n{quality})")
    if not run.has("power"):
        axes.text(0.5, 0.5, "no power trace", transform=axes.transAxes, ha="center")
        return
    _, total = total_steps(run)
    inside = (
        total.watts[(total.edges_s[1:] > zero_s) & (total.edges_s[:-1] < end_s)]
        if total.watts.size
        else total.watts
    )
    scaled = type(total)((total.edges_s - zero_s) * scale, total.watts)
    draw_steps(axes, scaled, 0.0, "black", "all", 1.2)
    idle_w = idle_watts(run)
    if idle_w is not None:
        axes.axhline(idle_w, color="#444444", linestyle="--", linewidth=1)
        axes.annotate(
            "idle", (1.0, idle_w), xycoords=("axes fraction", "data"), xytext=(2, 0), textcoords="offset points",
            va="center", fontsize=7,
        )  # fmt: skip
    highest = np.nanmax(inside) if inside.size and not np.isnan(inside).all() else (idle_w or 1.0)
    axes.set_ylim(0, 1.15 * float(highest))


def _short(names: Sequence[str]) -> list[str]:
    """Workers' names without what stands in brackets."""
    return [name.split("(")[0].strip() for name in names]
