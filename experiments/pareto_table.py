"""How far the best policies of finished sweeps are from the bound, and from the best schedule of small graphs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from experiments import records
from experiments.bounds import EpochWork
from experiments.fronts import Best, Comparison, Point, compare, least_seconds
from experiments.progress import NOTHING
from schedulers.bounds import BestSchedule, BoundError
from schedulers.bounds.best import MAX_TASKS

SEARCH_S = 60.0
"""How long the best schedule of a small graph is searched for."""

OVER_BOUND, OVER_SCHEDULE = 1.15, 1.05
"""The most controllable joules of the best policy, as a multiple of the bound's and of the best schedule's."""

SAME_AREA = 1e-9
"""By which share hypervolumes may differ and be the same."""

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
    "best schedule over bound",
    "ours over best schedule",
    "hypervolume, ours over StarPU's",
    "misses",
)


@final
@dataclass(frozen=True)
class Sweeps:
    """Sweeps of the same tasks on the same node: their policies together, by one deadline."""

    name: str
    seed: int
    slowdown: float
    points: tuple[Point, ...]
    work: EpochWork

    @property
    def compared(self) -> Comparison:
        """Both sides by ``slowdown`` times the least makespan found by any of them."""
        return compare(self.points, self.work, self.slowdown * least_seconds(self.points))


def print_table(folders: Sequence[Path]) -> int:
    """Print a row for each node and graph swept under the folders; returns the exit status."""
    found = sorted({path for folder in folders for path in folder.rglob("pareto*.json")} - _graphs(folders))
    if not found:
        print(
            "error: no pareto.json under these folders; run `python -m experiments.pareto` first",
            file=sys.stderr,
        )
        return 2
    print("| " + " | ".join(HEAD) + " |")
    print("| --- | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for sweeps in merged(found):
        print("| " + " | ".join(row(sweeps)) + " |", flush=True)
    print(
        "\nOver: controllable joules, without those of the idle machine over the least makespan, as a multiple of the "
        f"bound's by the same deadline, and of the best schedule's found by it in {SEARCH_S:g} s (*: it may not be the "
        "best; not looked for where the bound is as near). "
        f"Misses: above {OVER_BOUND:g} of the bound, above {OVER_SCHEDULE:g} of the best schedule, no larger "
        "hypervolume than StarPU's. Simulated."
    )
    return 0


def _graphs(folders: Sequence[Path]) -> set[Path]:
    return {path for folder in folders for path in folder.rglob(f"*_{records.GRAPH_NAME}")}


def merged(paths: Sequence[Path]) -> list[Sweeps]:
    """Put sweeps of the same tasks together; of a policy that two of them ran, the later path's counts."""
    by_work: dict[tuple[str, int, str], list[tuple[Any, EpochWork]]] = {}
    for path in paths:
        record = records.read_json(path)
        work = records.read_json(path.with_name(f"{path.stem}_{records.GRAPH_NAME}"))["work"]
        key = record["name"], record["seed"], str(work)
        by_work.setdefault(key, []).append((record, EpochWork.from_json(work)))
    found = []
    for (name, seed, _), own in by_work.items():
        points: dict[tuple[str, str], Point] = {}
        for record, _ in own:
            points |= {(point["label"], point["side"]): Point(**point) for point in record["points"]}
        first = own[0][0]
        slowdown = first["comparison"]["deadline_s"] / least_seconds(
            [Point(**point) for point in first["points"]]
        )
        found.append(Sweeps(name, seed, slowdown, tuple(points.values()), own[0][1]))
    return found


def row(sweeps: Sweeps) -> list[str]:
    """The cells of one node and graph."""
    work, found = sweeps.work, sweeps.compared
    enough = found.ours.over_bound is not None and found.ours.over_bound <= OVER_SCHEDULE
    schedule = None if enough else best_of(work, found.deadline_s)
    over_bound, over_schedule = schedule_ratios(work, found, schedule)
    mark = "" if schedule is None or schedule.proven else " *"
    area = found.ours_hypervolume / found.starpu_hypervolume if found.starpu_hypervolume > 0 else float("inf")
    return [
        f"{sweeps.name}, seed {sweeps.seed}",
        f"{found.deadline_s:.4g}",
        f"{found.bound_j:.4g}",
        *_best_cells(found.ours),
        *_best_cells(found.starpu),
        NOTHING if over_bound is None else f"{over_bound:.3f}{mark}",
        _schedule_cell(found.ours, over_schedule, enough) + mark,
        f"{area:.4f}",
        ", ".join(misses(found, over_schedule, area)) or "none",
    ]


def _best_cells(best: Best) -> list[str]:
    if best.label is None:
        return ["none in time", NOTHING, NOTHING]
    over = NOTHING if best.over_bound is None else f"{best.over_bound:.3f}"
    return [f"`{best.label}`", f"{best.joules:.4g}", over]


def _schedule_cell(ours: Best, over_schedule: float | None, enough: bool) -> str:
    if enough:  # no schedule is below the bound, so none needs to be looked for
        return f"at most {ours.over_bound:.3f}"
    return NOTHING if over_schedule is None else f"{over_schedule:.3f}"


def schedule_ratios(
    work: EpochWork, found: Comparison, schedule: BestSchedule | None
) -> tuple[float | None, float | None]:
    """The best schedule over the bound, and this project's best over the best schedule; None where there is none."""
    if schedule is None:
        return None, None
    schedule_j = work.controllable_j(schedule.energy_j)
    over_bound = schedule_j / found.bound_controllable_j if found.bound_controllable_j > 0 else None
    if found.ours.joules is None or not schedule_j > 0:
        return over_bound, None
    return over_bound, work.controllable_j(found.ours.joules) / schedule_j


def misses(found: Comparison, over_schedule: float | None, area: float) -> list[str]:
    """Which of the three aims this project's policies miss."""
    named = []
    if found.ours.over_bound is None or found.ours.over_bound > OVER_BOUND:
        named.append("bound")
    if over_schedule is not None and over_schedule > OVER_SCHEDULE:
        named.append("schedule")
    if area <= 1 + SAME_AREA:
        named.append("hypervolume")
    return named


def best_of(work: EpochWork, deadline_s: float) -> BestSchedule | None:
    """The best schedule by the deadline; None for a graph that is too large, or where none was found."""
    once: Any = len(work.graphs) == 1 and work.graphs[0].repeats == 1
    if not once or len(work.graphs[0]) > MAX_TASKS:
        return None
    try:
        return work.best(deadline_s, SEARCH_S)
    except BoundError:
        return None
