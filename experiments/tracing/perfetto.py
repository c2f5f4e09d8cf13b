"""The JSON of Chrome's trace viewer, which ui.perfetto.dev opens.

Tasks are slices on a track for each worker, dependencies flows between them, watts counters, windows more slices.
The format: "Trace Event Format", docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.events import plain
from experiments.records import write_whole
from experiments.tracing.content import Content, changes

_WORKERS, _WINDOWS, _POWER = 1, 2, 3
"""Processes of the viewer: groups of tracks."""


def write(content: Content, path: Path) -> None:
    """Write the trace whole."""
    text = ",\n".join(json.dumps(plain(event), allow_nan=False) for event in _events(content))
    about = json.dumps({"run": content.name, "joules": content.quality})
    whole = f'{{"displayTimeUnit": "ms", "otherData": {about}, "traceEvents": [\n{text}\n]}}\n'
    write_whole(path, whole.encode())


def _events(content: Content) -> Iterator[dict[str, Any]]:
    names = {_WORKERS: "workers", _WINDOWS: "windows", _POWER: f"power ({content.quality})"}
    for process, name in names.items():
        yield {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": {"name": name}}
        yield {
            "ph": "M",
            "pid": process,
            "tid": 0,
            "name": "process_sort_index",
            "args": {"sort_index": process},
        }
    for worker, name in enumerate(content.workers):
        yield {"ph": "M", "pid": _WORKERS, "tid": worker + 1, "name": "thread_name", "args": {"name": name}}
    yield from _tasks(content)
    yield from _flows(content)
    yield from _windows(content)
    yield from _power(content)


def _us(seconds: float) -> float:
    """Microseconds, to the nanosecond: the format's unit."""
    return round(seconds * 1e6, 3)


def _tasks(content: Content) -> Iterator[dict[str, Any]]:
    for row in content.tasks.to_dict("records"):
        shown = ("task", "tile", "epoch", "window", "submit_s", "ready_s", "predicted_s", "predicted_j")
        yield {
            "ph": "X",
            "pid": _WORKERS,
            "tid": row["worker"] + 1,
            "name": row["codelet"],
            "cat": "task",
            "ts": _us(row["start_s"]),
            "dur": round(_us(row["end_s"]) - _us(row["start_s"]), 3),
            "args": {name: row[name] for name in shown},
        }


def _flows(content: Content) -> Iterator[dict[str, Any]]:
    """An arrow from the end of a task to the start of one that waited for it; both times lie inside of the slices."""
    worker = content.tasks["worker"].to_numpy()
    start_s, end_s = content.tasks["start_s"].to_numpy(), content.tasks["end_s"].to_numpy()
    for number, (earlier, later) in enumerate(content.pairs):
        flow = {"cat": "dependency", "name": "dependency", "id": number, "pid": _WORKERS}
        yield {**flow, "ph": "s", "tid": worker[earlier] + 1, "ts": _us(end_s[earlier])}
        yield {**flow, "ph": "f", "bp": "e", "tid": worker[later] + 1, "ts": _us(start_s[later])}


def _windows(content: Content) -> Iterator[dict[str, Any]]:
    for row in content.windows.to_dict("records"):
        around = row["window"] in ("run", "batches")  # it overlaps others, so it has a track of its own
        name = row["window"] if row["epoch"] == 0 else f"{row['window']} {row['epoch']}"
        yield {
            "ph": "X",
            "pid": _WINDOWS,
            "tid": 1 + around + (row["window"] == "batches"),
            "name": name,
            "cat": "window",
            "ts": _us(row["start_s"]),
            "dur": round(_us(row["end_s"]) - _us(row["start_s"]), 3),
        }


def _power(content: Content) -> Iterator[dict[str, Any]]:
    """A counter keeps its value until the next one, so that the start of a gap is said by an instant."""
    for channel, steps in content.watts.items():
        for at_s, watts in changes(steps):
            where = {"pid": _POWER, "tid": 0, "ts": _us(at_s)}
            if watts is None:
                yield {
                    **where,
                    "ph": "i",
                    "s": "p",
                    "name": f"{channel}: not known from here",
                    "cat": "power",
                }
            else:
                yield {**where, "ph": "C", "name": f"{channel} (W)", "args": {"W": float(np.round(watts, 6))}}
