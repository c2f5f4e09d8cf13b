"""How the tasks of an epoch's graphs access their data, kept for traces: who waits for whom follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dahl.starpu import TaskGraph
from experiments import records

FILE_NAME = "accesses.json"


def write_accesses(run_dir: Path, graphs: Sequence[tuple[TaskGraph, int]]) -> None:
    """Leave `accesses.json` in a run's folder; data are numbered in the order of their first use."""
    numbers: dict[int, int] = {}
    parts = []
    for graph, times in graphs:
        tasks = []
        for task, used in zip(graph.tasks(), graph.accesses(), strict=True):
            own = [[numbers.setdefault(id(handle), len(numbers)), mode] for handle, mode in used]
            tasks.append([task.codelet.name, own])
        parts.append({"times": times, "tasks": tasks})
    records.write_json(run_dir / FILE_NAME, {"parts": parts})
