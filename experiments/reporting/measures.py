"""What a report says of each finished run: its means per epoch, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import pandas as pd

from experiments.reporting.variants import factors_of, label_of, setting_of, setting_title
from experiments.runs import NoTableError, Run, Runs, RunsError
from experiments.summary import QUALITIES


@final
@dataclass(frozen=True)
class Measure:
    """A column of numbers: its name, what it is called, its unit."""

    column: str
    title: str
    unit: str
    derived: bool = False
    """Whether it stands in the second table."""


MEASURES = (
    Measure("seconds_per_epoch", "time per epoch", "s"),
    Measure("cpu_seconds_per_epoch", "CPU time per epoch", "s"),
    Measure("joules_per_epoch", "energy per epoch", "J"),
    Measure("joules_per_epoch_net", "energy per epoch, net of idle", "J"),
    Measure("watts", "mean power", "W"),
    Measure("images_per_joule", "samples per joule", "1/J"),
    Measure("accuracy", "test accuracy", "1"),
    Measure("edp_j_s", "EDP per epoch", "J\u00a0s", derived=True),
    Measure("ed2p_j_s2", "ED2P per epoch", "J\u00a0s²", derived=True),
    Measure("joules_to_accuracy", "energy to accuracy", "J", derived=True),
    Measure("bound_ratio", "energy over bound", "1", derived=True),
    Measure("bound_ratio_controllable", "controllable energy over bound", "1", derived=True),
)

_COPIED = ("scheduler", "framework", "seed", "repeat", "simulated", "epochs", "energy_quality", "disturbed")


def measured(runs: Runs, accuracy: float | None = None) -> pd.DataFrame:
    """A row for each finished run, oldest first: `run`, `setting`, `label`, `factors`, `exact`, and `MEASURES`.

    `accuracy` is the one that `joules_to_accuracy` counts up to; None takes for each setting what every run reaches.
    `exact`: simulated without noise, so that a repeat has the same digits. Raises RunsError where no trial finished.
    """
    finished = [run for run in runs if run.summary["status"] == "finished"]
    if not finished:
        raise RunsError(_nothing_finished(runs))
    epochs, blocks = _by_run(runs, "epochs"), _by_run(runs, "windows")
    rows: list[dict[str, Any]] = []
    for setting in dict.fromkeys(setting_of(run) for run in finished):
        own = [run for run in finished if setting_of(run) == setting]
        asked = common_accuracy([epochs.get(str(run.path)) for run in own]) if accuracy is None else accuracy
        for run, factors in zip(own, factors_of(own), strict=True):
            folder = str(run.path)
            rows.append(
                {
                    "run": folder,
                    "setting": setting_title(setting),
                    "label": label_of(factors),
                    "factors": factors,
                    "exact": is_exact(run),
                    **{
                        name: run.summary[name] if name in run.summary else run.config.get(name)
                        for name in _COPIED
                    },
                    **_numbers(run.summary),
                    "accuracy_asked": asked,
                    "joules_to_accuracy": joules_to(asked, epochs.get(folder), blocks.get(folder)),
                }
            )
    return pd.DataFrame(rows).astype({measure.column: float for measure in MEASURES})


def _nothing_finished(runs: Runs) -> str:
    frame = runs.summary
    if runs.problems.empty and frame.empty:
        return "there are no runs"
    reasons = frame["error"].fillna(frame["problem"]).dropna()
    counts = frame["status"].fillna("no record").value_counts()
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    first = f"; the first says: {reasons.iloc[0]}" if len(reasons) else ""
    return f"no trial finished, so there is nothing to compare ({words}){first}"


def is_exact(run: Run) -> bool:
    """Whether another run of the same has the same digits: simulated, without noise."""
    noises = ((run.config.get(part) or {}).get("noise") for part in ("platform", "estimates"))
    return bool(run.summary["simulated"]) and not any(noises)


def _numbers(summary: Mapping[str, Any]) -> dict[str, float | None]:
    seconds, joules = summary["seconds_per_epoch"], summary["joules_per_epoch"]
    images_per_s = summary["images_per_second"]
    known = seconds is not None and joules is not None
    images = None if images_per_s is None or seconds is None else images_per_s * seconds
    return {
        "seconds_per_epoch": seconds,
        "cpu_seconds_per_epoch": summary["cpu_seconds_per_epoch"],
        "joules_per_epoch": joules,
        "joules_per_epoch_net": summary["joules_per_epoch_net"],
        "watts": joules / seconds if known and seconds > 0 else None,
        "edp_j_s": joules * seconds if known else None,
        "ed2p_j_s2": joules * seconds**2 if known else None,
        "images_per_joule": images / joules if images and joules else None,
        "accuracy": summary["accuracy"],
        "bound_ratio": summary["bound_ratio"],
        "bound_ratio_controllable": summary["bound_ratio_controllable"],
    }


def _by_run(runs: Runs, table: str) -> dict[str, pd.DataFrame]:
    """A table's rows by run; runs without it are left out."""
    try:
        frame = runs.table(table)
    except NoTableError:
        return {}
    return {str(run): rows for run, rows in frame.groupby("run", observed=True)}


def common_accuracy(epochs: Sequence[pd.DataFrame | None]) -> float | None:
    """The accuracy that every run reaches at some epoch, rounded down to 0.01; None where one has none."""
    best = [math.nan if frame is None else float(frame["accuracy"].max()) for frame in epochs]
    if not best or any(math.isnan(value) for value in best):
        return None
    return math.floor(min(best) * 100 + 1e-9) / 100


def joules_to(
    accuracy: float | None, epochs: pd.DataFrame | None, windows: pd.DataFrame | None
) -> float | None:
    """Joules of training until the first epoch after which the test accuracy was at least this.

    An epoch that shares its block with others counts with the whole block. None where it was not reached, or where the
    joules are not known.
    """
    if accuracy is None or epochs is None or windows is None:
        return None
    reached = epochs.loc[epochs["accuracy"] >= accuracy, "epoch"]
    blocks = windows[(windows["window"] == "epoch") & windows["in_total"].fillna(False)]
    if reached.empty or blocks.empty:
        return None
    counted = blocks.loc[blocks["epoch"] <= reached.min()]
    if counted["gross_j"].isna().any() or counted["last_epoch"].max() < reached.min():
        return None
    return float(counted["gross_j"].sum())


def left_out(runs: Runs) -> pd.DataFrame:
    """A row for each folder that no table counts: `run`, `scheduler`, `status`, `reason`."""
    frame = runs.summary
    out = frame[frame["problem"].notna() | (frame["status"] != "finished")]
    reason = out["problem"].fillna(out["error"]).fillna(out["status"].map(lambda status: f"status: {status}"))
    shown = pd.DataFrame({"scheduler": out["scheduler"], "status": out["status"], "reason": reason})
    return shown.reset_index()


def check_qualities(frame: pd.DataFrame) -> None:
    """Refuse to compare joules of different qualities. Raises RunsError with what there is and the way out."""
    for setting, rows in frame.dropna(subset=["joules_per_epoch"]).groupby("setting", sort=False):
        counts = rows["energy_quality"].value_counts()
        if len(counts) > 1:
            words = ", ".join(f"{counts[quality]} {quality}" for quality in QUALITIES if quality in counts)
            raise RunsError(
                f"{setting}: the joules of these runs are of different qualities ({words}), and differences between "
                "them may be the meters'; name folders of one quality, or compare them all the same with --mixed"
            )
