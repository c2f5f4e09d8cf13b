"""Which task of a run waited for which: from how the recorded graphs access their data.

A native run with `trace=true` leaves `accesses.json`: the tasks of an epoch's graphs in the order of submission, each
with its data and how it accesses them. A simulated one has the same in its `graph.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd

from dahl.starpu.dependencies import Accesses, Dependencies, dependencies
from experiments import records
from experiments.accesses import FILE_NAME
from experiments.runs import Run, RunsError


@final
@dataclass(frozen=True)
class Part:
    """A recorded graph: its tasks' codelets and accesses, and how often an epoch submits it."""

    codelets: tuple[str, ...]
    accesses: Accesses
    times: int

    @property
    def order(self) -> Dependencies:
        """The order inside of a submission, and from one to the next."""
        return dependencies(self.accesses)


def read_parts(run: Run) -> tuple[Part, ...]:
    """The graphs of an epoch. Raises RunsError where the run left none, or they cannot be read."""
    for name, read in ((FILE_NAME, _from_accesses), (records.GRAPH_NAME, _from_graph)):
        path = run.path / name
        if path.exists():
            try:
                return read(records.read_json(path))
            except (OSError, KeyError, TypeError, ValueError) as error:
                raise RunsError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    raise RunsError(
        f"{run.path} has neither {FILE_NAME} nor {records.GRAPH_NAME}, so that the order of its tasks is not known; "
        "a run with trace=true writes one (a PyTorch twin has none)"
    )


def _from_accesses(record: dict[str, Any]) -> tuple[Part, ...]:
    return tuple(
        Part(
            tuple(codelet for codelet, _ in part["tasks"]),
            [[(data, mode) for data, mode in used] for _, used in part["tasks"]],
            part["times"],
        )
        for part in record["parts"]
    )


def _from_graph(record: dict[str, Any]) -> tuple[Part, ...]:
    graph = record["graph"]
    names = [kind["name"] for kind in graph["kinds"]]
    return tuple(
        Part(
            tuple(names[kind] for kind, _ in part["tasks"]),
            [[(data, mode) for data, mode in used] for _, used in part["tasks"]],
            part["times"],
        )
        for part in graph["parts"]
    )


def task_pairs(tasks: pd.DataFrame, parts: Sequence[Part]) -> np.ndarray:
    """Rows (earlier, later) of `tasks` (by position) of which the later one waited for the earlier one.

    Epochs are told apart; evaluations have no recorded order. Raises RunsError where the epochs' tasks are not those of
    the graphs, such as in a run that was cut off.
    """
    codelets = [name for part in parts for name in part.codelets * part.times]
    accesses = [used for part in parts for used in [*part.accesses] * part.times]
    within = np.array(list(dependencies(accesses).within), dtype=np.int64).reshape(-1, 2)
    at = np.arange(len(tasks))
    in_epochs = (tasks["window"] == "epoch").to_numpy()
    found = [np.empty((0, 2), np.int64)]
    for epoch, rows in pd.Series(at[in_epochs]).groupby(tasks["epoch"].to_numpy()[in_epochs]):
        places = rows.to_numpy()[np.argsort(tasks["task"].to_numpy()[rows], kind="stable")]
        names = tasks["codelet"].to_numpy()[places]
        if len(names) != len(codelets) or (names != codelets).any():
            raise RunsError(
                f"epoch {epoch} has {len(names)} tasks that are not the {len(codelets)} of the recorded graphs; "
                "leave its order out with --without-dependencies"
            )
        found.append(places[within])
    return np.concatenate(found)
