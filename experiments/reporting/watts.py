"""A run's power trace as steps: watts of each channel, and of all that count, with gaps where readings are missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.runs import Run

Floats = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Steps:
    """Watts from each edge to the next one, in seconds on StarPU's clock; NaN where they are not known."""

    edges_s: Floats
    watts: Floats


def counted_channels(run: Run) -> list[str]:
    """The channels whose joules add up to the total."""
    windows = run.windows
    return list(dict.fromkeys(windows.loc[windows["in_total"].fillna(False), "channel"]))


def channel_steps(power: pd.DataFrame, channel: str) -> Steps:
    """The mean watts between readings; a channel that was not read for a while has a gap there."""
    own = power[power["channel"] == channel].sort_values("time_s", kind="stable")
    end_s, watts = own["time_s"].to_numpy(np.float64), own["watts"].to_numpy(np.float64)
    joules = own["joules"].to_numpy(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        length_s = np.where(watts > 0, joules / watts, np.nan)
    before_s = np.concatenate([[np.nan], end_s[:-1]])
    start_s = np.fmax(before_s, end_s - length_s)
    # What is not known, and what draws nothing, reaches back to the reading before.
    start_s = np.where(np.isnan(length_s), before_s, start_s)
    start_s = np.where(np.abs(start_s - before_s) <= 1e-6, before_s, start_s)
    known = ~np.isnan(start_s) & (end_s > start_s)
    edges_s = np.unique(np.concatenate([start_s[known], end_s[known]]))
    return Steps(edges_s, _resampled(edges_s, start_s[known], end_s[known], watts[known]))


def _resampled(edges_s: Floats, start_s: Floats, end_s: Floats, watts: Floats) -> Floats:
    """The watts of intervals that do not overlap, between edges."""
    if edges_s.size < 2:
        return np.empty(0)
    middle_s = (edges_s[:-1] + edges_s[1:]) / 2
    at = np.searchsorted(end_s, middle_s)
    at = np.minimum(at, end_s.size - 1)
    inside = (start_s[at] <= middle_s) & (middle_s <= end_s[at])
    return np.where(inside, watts[at], np.nan)


def total_steps(run: Run) -> tuple[dict[str, Steps], Steps]:
    """Each channel that counts, and their sum: not known wherever one of them is not."""
    power = run.power
    channels = {name: channel_steps(power, name) for name in counted_channels(run)}
    channels = {name: steps for name, steps in channels.items() if steps.watts.size}
    if not channels:
        return {}, Steps(np.empty(0), np.empty(0))
    edges_s = np.unique(np.concatenate([steps.edges_s for steps in channels.values()]))
    total = sum(
        (_resampled(edges_s, s.edges_s[:-1], s.edges_s[1:], s.watts) for s in channels.values()),
        np.zeros(max(0, edges_s.size - 1)),
    )
    return channels, Steps(edges_s, total)


def idle_watts(run: Run) -> float | None:
    """What the machine draws with nothing to do, over the channels that count; None where that is not known."""
    windows: Any = run.windows
    epochs = windows[(windows["window"] == "epoch") & windows["in_total"].fillna(False)]
    watts = epochs["idle_j"] / epochs["seconds"]
    by_channel = watts.groupby(epochs["channel"]).median()
    return None if by_channel.empty or by_channel.isna().any() else float(by_channel.sum())


def spans(run: Run) -> pd.DataFrame:
    """The windows once each, in time: `window`, `epoch`, `last_epoch`, `start_s`, `end_s`."""
    columns = ["window", "epoch", "last_epoch", "start_s", "end_s"]
    return run.windows[columns].drop_duplicates().sort_values("start_s").reset_index(drop=True)
