"""What a trace shows of a run, whatever the format: tasks by worker, who waited for whom, watts, windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import pandas as pd

from experiments.reporting.figures.style import COLOURS
from experiments.reporting.watts import Steps, spans, total_steps
from experiments.runs import Run, RunsError
from experiments.tracing.order import read_parts, task_pairs


@final
@dataclass(frozen=True)
class Content:
    """Times are seconds since the run's first window, on StarPU's clock."""

    name: str
    quality: str
    workers: tuple[str, ...]
    tasks: pd.DataFrame
    """`experiments.schemas.TASKS`, in the order of their starts."""
    pairs: np.ndarray
    """Positions (earlier, later) in `tasks`."""
    watts: Mapping[str, Steps]
    """By channel, and of all that count as `all`."""
    windows: pd.DataFrame


def content_of(run: Run, *, with_order: bool = True) -> Content:
    """What there is of a run with tasks. Raises RunsError for one without, and where their order is not known."""
    tasks = run.tasks.sort_values(["start_s", "end_s"], kind="stable").reset_index(drop=True)
    if tasks.empty:
        raise RunsError(f"{run.path}: its trace of tasks is empty")
    workers = tuple(run.environment["starpu"]["workers"])
    if tasks["worker"].max() >= len(workers):
        raise RunsError(f"{run.path}: a task ran on worker {tasks['worker'].max()} of {len(workers)}")
    windows = spans(run)
    zero_s = min(float(windows["start_s"].min()), float(tasks["submit_s"].min()))
    pairs = task_pairs(tasks, read_parts(run)) if with_order else np.empty((0, 2), np.int64)
    return Content(
        run.name,
        str(run.summary["energy_quality"] or "not recorded"),
        workers,
        _moved(tasks, zero_s, "submit_s", "ready_s", "start_s", "end_s"),
        pairs,
        _watts(run, zero_s),
        _moved(windows, zero_s, "start_s", "end_s"),
    )


def _moved(frame: pd.DataFrame, zero_s: float, *columns: str) -> pd.DataFrame:
    return frame.assign(**{column: frame[column] - zero_s for column in columns})


def _watts(run: Run, zero_s: float) -> dict[str, Steps]:
    if not run.has("power"):
        return {}
    channels, total = total_steps(run)
    shown = {**channels, "all": total} if len(channels) > 1 else channels
    return {name: Steps(steps.edges_s - zero_s, steps.watts) for name, steps in shown.items()}


def colours(content: Content) -> dict[str, str]:
    """A colour for each codelet, in turns."""
    names = sorted(content.tasks["codelet"].unique())
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}


def changes(steps: Steps) -> Iterator[tuple[float, float | None]]:
    """When the watts change, and to what; None from where they are not known on."""
    before: float | None = None
    first = True
    for at_s, watts in zip(steps.edges_s, [*steps.watts, np.nan], strict=steps.watts.size > 0):
        now = None if np.isnan(watts) else float(watts)
        if first or now != before:
            yield float(at_s), now
        before, first = now, False
