"""Medians with bootstrap intervals, and paired comparisons with a baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import bootstrap

from experiments.reporting.measures import MEASURES
from experiments.reporting.variants import baseline_of
from experiments.runs import RunsError
from schedulers.bounds import FrontPoint, pareto_front

CONFIDENCE = 0.95
LEAST_FOR_INTERVAL = 5
"""Of fewer values a bootstrap interval of the median is their range at best, so the range is shown, by that name."""

Kind = Literal["interval", "range", "one", "exact"]
KIND_WORDS: Mapping[Kind, str] = {
    "interval": "95 % bootstrap interval of the median",
    "range": f"lowest and highest (fewer than {LEAST_FOR_INTERVAL} repeats: no interval)",
    "one": "one run: no spread known",
    "exact": "simulated without noise: a repeat has the same digits, so there is no spread",
}

Floats = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Spread:
    """A median, what lies around it, and what that is."""

    median: float
    low: float
    high: float
    count: int
    kind: Kind


def spread_of(
    values: Sequence[float], *, exact: bool, simulated: bool, seed: int, resamples: int
) -> Spread | None:
    """The median of values that are known, with its interval; None where none is.

    Repeats of a simulation with the same digits count as one.
    """
    known = np.asarray([value for value in values if not np.isnan(value)], dtype=np.float64)
    if simulated:
        known = np.unique(known)
    if known.size == 0:
        return None
    median = float(np.median(known))
    if exact and known.size == 1:
        return Spread(median, np.nan, np.nan, 1, "exact")
    if known.size == 1:
        return Spread(median, np.nan, np.nan, 1, "one")
    if exact or known.size < LEAST_FOR_INTERVAL:
        return Spread(median, float(known.min()), float(known.max()), int(known.size), "range")
    low, high = _interval(known, seed, resamples)
    return Spread(median, low, high, int(known.size), "interval")


def _interval(values: Floats, seed: int, resamples: int) -> tuple[float, float]:
    """Percentiles of resampled medians (BCa has no acceleration for a median of few values)."""
    found = bootstrap(
        (values,),
        np.median,
        confidence_level=CONFIDENCE,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def medians(frame: pd.DataFrame, *, seed: int, resamples: int) -> pd.DataFrame:
    """A row for each variant of each setting, fewest joules first: of each measure median, low and high.

    `frame` is `measures.measured`'s.
    """
    rows = []
    for (setting, label), own in frame.groupby(["setting", "label"], sort=False):
        row: dict[str, Any] = {"setting": setting, "label": label, "runs": len(own), **_facts(own)}
        for measure in MEASURES:
            spread = _spread(own[measure.column], own, seed, resamples)
            row |= _columns(measure.column, spread)
            if measure.column == "joules_per_epoch" or "spread" not in row:
                row["spread"] = None if spread is None else spread.kind
        rows.append(row)
    found = pd.DataFrame(rows).sort_values(["joules_per_epoch", "seconds_per_epoch"], kind="stable")
    settings = {setting: place for place, setting in enumerate(dict.fromkeys(frame["setting"]))}
    return found.sort_values("setting", key=lambda names: names.map(settings), kind="stable").reset_index(
        drop=True
    )


def _facts(own: pd.DataFrame) -> dict[str, Any]:
    qualities = own["energy_quality"].dropna().unique()
    return {
        "scheduler": own["scheduler"].iloc[0],
        "framework": own["framework"].iloc[0],
        "quality": " and ".join(qualities) or None,
        "accuracy_asked": own["accuracy_asked"].iloc[0],
    }


def _spread(values: Any, own: pd.DataFrame, seed: int, resamples: int) -> Spread | None:
    exact, simulated = bool(own["exact"].all()), bool(own["simulated"].fillna(False).all())
    return spread_of(list(values), exact=exact, simulated=simulated, seed=seed, resamples=resamples)


def _columns(name: str, spread: Spread | None) -> dict[str, float]:
    found = (np.nan,) * 3 if spread is None else (spread.median, spread.low, spread.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))


RATIOS = {"energy": "joules_per_epoch", "time": "seconds_per_epoch", "edp": "edp_j_s"}
"""What is paired: the ratio of a measure to the baseline's of the same seed and repeat."""


def paired(frame: pd.DataFrame, asked: Mapping[str, str], *, seed: int, resamples: int) -> pd.DataFrame:
    """A row for each variant but the baseline: pairs, energy saved, slowdown and change of the EDP, with low and high.

    Shares of the baseline's, so 0.1 is 10 %. Runs are paired by seed and repeat, those that share both by their order
    in time; `unpaired` counts those left over on both sides. Raises RunsError where no setting has the baseline.
    """
    rows, found = [], False
    for setting, own in frame.groupby("setting", sort=False):
        there_are = list(dict.fromkeys(own["factors"]))
        for factors in there_are:
            base = baseline_of(factors, asked, there_are)
            found = found or base is not None
            if base is None or base == factors:
                continue
            is_own, is_base = own["factors"].map(factors.__eq__), own["factors"].map(base.__eq__)
            rows.append({"setting": setting, **_pair(own[is_own], own[is_base], seed, resamples)})
    if not found:
        labels = ", ".join(frame["label"].unique())
        wanted = " ".join(f"{key}={value}" for key, value in asked.items())
        raise RunsError(f"no finished run is the baseline {wanted}; there are: {labels}")
    return pd.DataFrame(rows)


def _pair(own: pd.DataFrame, base: pd.DataFrame, seed: int, resamples: int) -> dict[str, Any]:
    joined = _keyed(own).join(_keyed(base).add_suffix("_base"), how="inner")
    both = pd.concat([own, base])
    row: dict[str, Any] = {
        "label": own["label"].iloc[0],
        "baseline": base["label"].iloc[0],
        "pairs": len(joined),
        "unpaired": len(both) - 2 * len(joined),
        "quality": " and ".join(both["energy_quality"].dropna().unique()) or None,
    }
    for name, column in RATIOS.items():
        ratios = joined[column] / joined[f"{column}_base"]
        spread = _spread(ratios, both, seed, resamples)
        columns = _columns(name, spread)
        if name == "energy":
            row["spread"] = None if spread is None else spread.kind
            saved = {
                "energy_saved": "energy",
                "energy_saved_low": "energy_high",
                "energy_saved_high": "energy_low",
            }
            row |= {to: 1 - columns[of] for to, of in saved.items()}
        else:
            title = "slowdown" if name == "time" else "edp_change"
            row |= {key.replace(name, title): value - 1 for key, value in columns.items()}
    return row


def _keyed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows by seed, repeat and how many of the same came before."""
    seen: Counter[Any] = Counter()
    keys = []
    for seed, repeat in zip(rows["seed"], rows["repeat"], strict=True):
        pair = (None if pd.isna(seed) else int(seed), None if pd.isna(repeat) else int(repeat))
        keys.append((*pair, seen[pair]))
        seen[pair] += 1
    return rows.set_index(pd.MultiIndex.from_tuples(keys))


def front(frame: pd.DataFrame) -> pd.DataFrame:
    """The variants of one setting that no other one beats in both median seconds and median joules, by seconds."""
    known = frame.dropna(subset=["seconds_per_epoch", "joules_per_epoch"])
    points = [
        FrontPoint(*pair) for pair in zip(known["seconds_per_epoch"], known["joules_per_epoch"], strict=True)
    ]
    return known.iloc[pareto_front(points)]
