"""What tells one trial from another, and which of them a folder of runs has recorded already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments import records
from experiments.run_lock import RunLock

HOW_IT_RUNS = (
    "output",
    "name",
    "sweep",
    "position",
    "repeats",
    "order_seed",
    "jobs",
    "resume",
    "allow_concurrent",
    "timeout_s",
    "guard",
    "max_foreign_cores",
)
"""Keys that say where and how a trial is run, not what it is."""

State = Literal["outcome", "running", "cut off"]


@dataclass(frozen=True)
class Recorded:
    """An earlier trial of the same identity."""

    run_dir: Path
    status: str
    state: State


def identity(config: Mapping[str, Any]) -> str:
    """A digest of a trial's resolved configuration, its seed and its repeat among it.

    Where records and data sets are kept, and how the trial is supervised, is no part of it.
    """
    own = {key: value for key, value in config.items() if key not in HOW_IT_RUNS}
    if isinstance(own.get("dataset"), Mapping):
        own["dataset"] = {key: value for key, value in own["dataset"].items() if key != "cache_dir"}
    own["choices"] = {key: value for key, value in config["choices"].items() if key != "experiment"}
    text = json.dumps(own, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def recorded(experiment_dir: Path, wanted: str) -> Iterator[Recorded]:
    """The trials of an identity in the folder of an experiment, oldest first.

    `finished` and `failed` are outcomes. A trial that was interrupted, or whose supervisor is gone, is `cut off`.
    """
    for path in sorted(experiment_dir.glob(f"*/{records.SUMMARY_NAME}")):
        summary = records.read_json(path)
        if summary.get("identity") == wanted:
            yield Recorded(path.parent, summary["status"], _state(path.parent, summary["status"]))


def _state(run_dir: Path, status: str) -> State:
    if status in ("finished", "failed"):
        return "outcome"
    return "running" if status == "running" and RunLock.is_held(run_dir) else "cut off"
