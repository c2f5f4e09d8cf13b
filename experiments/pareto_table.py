"""How far the best policies of finished sweeps are from the bound, and from the best schedule of small graphs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import records
from experiments.bounds import EpochWork
from experiments.fronts import Best, Comparison, Point, compare
from experiments.progress import NOTHING
from schedulers.bounds import BestSchedule, BoundError
from schedulers.bounds.best import MAX_TASKS

SEARCH_S = 60.0
"""How long the best schedule of a small graph is searched for."""

HEAD = (
    "node and graph",
    "deadline s",
    "bound J",
    "best of this project",
    "J",
    "over bound",
    "best of StarPU's",
    "J",
    "over bound",
    "over best schedule",
    "hypervolume, ours : StarPU's",
)


def print_table(folders: Sequence[Path]) -> int:
    """Print the table of every sweep under the folders; returns the exit status."""
    found = sorted({path for folder in folders for path in folder.rglob("pareto*.json")} - _graphs(folders))
    if not found:
        print(
            "error: no pareto.json under these folders; run `python -m experiments.pareto` first",
            file=sys.stderr,
        )
        return 2
    print("| " + " | ".join(HEAD) + " |")
    print("| --- | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for path in found:
        print("| " + " | ".join(row(path)) + " |", flush=True)
    print(
        "\nOver: controllable joules, without those of the idle machine over the least makespan, as a multiple of the "
        "bound's by the same deadline, and of the best schedule's found by it. Simulated."
    )
    return 0


def _graphs(folders: Sequence[Path]) -> set[Path]:
    return {path for folder in folders for path in folder.rglob(f"*_{records.GRAPH_NAME}")}


def row(path: Path) -> list[str]:
    """The cells of one sweep."""
    record = records.read_json(path)
    work = EpochWork.from_json(records.read_json(path.with_name(f"{path.stem}_{records.GRAPH_NAME}"))["work"])
    points = [Point(**point) for point in record["points"]]
    found = compare(points, work, record["comparison"]["deadline_s"])
    return [
        f"{record['name']}, seed {record['seed']}",
        f"{found.deadline_s:.4g}",
        f"{found.bound_j:.4g}",
        *_best_cells(found.ours),
        *_best_cells(found.starpu),
        _over_schedule(work, found),
        f"{found.ours_hypervolume:.3g} : {found.starpu_hypervolume:.3g}",
    ]


def _best_cells(best: Best) -> list[str]:
    if best.label is None:
        return ["none in time", NOTHING, NOTHING]
    over = NOTHING if best.over_bound is None else f"{best.over_bound:.3f}"
    return [f"`{best.label}`", f"{best.joules:.4g}", over]


def _over_schedule(work: EpochWork, found: Comparison) -> str:
    """This project's best over the best schedule; marked where the search did not come to its end."""
    schedule = best_of(work, found.deadline_s)
    if schedule is None or found.ours.joules is None:
        return NOTHING
    least_j = work.controllable_j(schedule.energy_j)
    ratio = work.controllable_j(found.ours.joules) / least_j
    return f"{ratio:.3f}" if schedule.proven else f"{ratio:.3f} (search cut short)"


def best_of(work: EpochWork, deadline_s: float) -> BestSchedule | None:
    """The best schedule by the deadline; None for a graph that is too large, or where none was found."""
    once: Any = len(work.graphs) == 1 and work.graphs[0].repeats == 1
    if not once or len(work.graphs[0]) > MAX_TASKS:
        return None
    try:
        return work.best(deadline_s, SEARCH_S)
    except BoundError:
        return None
