"""Epochs of finished runs as figures show them: joules by block, and accuracy by joules so far."""

from __future__ import annotations

import pandas as pd

from experiments.runs import NoTableError, Runs


def blocks(runs: Runs, frame: pd.DataFrame) -> pd.DataFrame:
    """A row per block of epochs of each run in `frame` (`measures.measured`'s) whose joules are known.

    Columns: `run`, `label`, `epoch`, `last_epoch`, `joules` of the block, `joules_per_epoch`, `quality`.
    """
    labels = frame.set_index("run")["label"]
    try:
        windows = runs.windows
    except NoTableError:
        return pd.DataFrame(
            columns=["run", "label", "epoch", "last_epoch", "joules", "joules_per_epoch", "quality"]
        )
    own = windows[
        (windows["window"] == "epoch") & windows["in_total"].fillna(False) & windows["run"].isin(labels.index)
    ]
    keys = ["run", "epoch", "last_epoch"]
    by_block = own.groupby(keys, observed=True, sort=False)
    found = (
        by_block["gross_j"].agg(lambda parts: parts.sum(skipna=False)).rename("joules").dropna().reset_index()
    )
    found["run"] = found["run"].astype(str)
    found["label"] = found["run"].map(labels)
    found["quality"] = found["run"].map(frame.set_index("run")["energy_quality"])
    found["joules_per_epoch"] = found["joules"] / (found["last_epoch"] - found["epoch"] + 1)
    return found


def accuracy_by_joules(runs: Runs, blocks: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """A row per block of the runs in `shown`: `label`, `joules` of training so far, `accuracy` then, `quality`."""
    own = blocks[blocks["run"].isin(shown["run"])].sort_values(["run", "epoch"], kind="stable")
    accuracies = runs.epochs[["run", "epoch", "accuracy"]].dropna()
    accuracies = accuracies.assign(run=accuracies["run"].astype(str)).rename(columns={"epoch": "last_epoch"})
    found = own.assign(joules=own.groupby("run")["joules"].cumsum())
    return found.merge(accuracies, on=["run", "last_epoch"])[
        ["run", "label", "joules", "accuracy", "quality"]
    ]


def representatives(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each variant the run whose joules (seconds, where there are none) are closest to its median."""
    column = frame["joules_per_epoch"].fillna(frame["seconds_per_epoch"])
    away = (column - column.groupby(frame["label"]).transform("median")).abs()
    return frame.loc[away.groupby(frame["label"], sort=False).idxmin()]
