"""The file of what `experiments.calibrate` measured on a machine: seconds and joules of each kind of task.

```
{"file_version": 1, "machine": {...}, "versions": {...},
 "energy": {"sources", "idle_w", "runtime_w", "idle_drift"},
 "checks": [{"tile", "measured_j", "predicted_j", "never_apart", ...}],
 "tasks": [{"operation", "key", "tile", "worker_class", "workers", "kernels",
            "repeats", "seconds", "seconds_low", "seconds_high", "seconds_mean",
            "watts", "watts_low", "watts_high", "energy_j", "quality", "resolved"}],
 "in_training": [{"model", "batch_size", "tile", "fused", "workers", "worker_class", "kernels",
                  "scheduler", "tasks", "seconds": {KEY: mean}, "counts": {KEY: number}, "sigma",
                  "around": {"gap_s", "after_s", "wake_s", "wakes", "submit_s"}}]}
```

Seconds are medians with the middle 95 %; watts and joules are above the idle machine, per busy worker and per task,
with an interval of 95 % that holds the counters' bounds. `workers` is how many ran it at once, `kernels` a digest of
the compiled code.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dahl.starpu.kernel import cache_root
from energy import Quality
from experiments import records

FILE_VERSION = 1


class MeasuredFileError(Exception):
    """A file is none of `experiments.calibrate`'s; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class TaskMeasurement:
    """One kind of task on one class of workers."""

    operation: str
    key: str
    """`dahl.costs.cost_key`: the operation and the shapes of its operands."""
    tile: int
    worker_class: str
    workers: int
    kernels: str
    repeats: int
    seconds: float
    seconds_low: float
    seconds_high: float
    seconds_mean: float
    watts: float
    """NaN where a reading was missing."""
    watts_low: float
    watts_high: float
    """NaN where the watts are the model's."""
    energy_j: float
    quality: Quality
    resolved: bool
    """Whether counters and repeats pin the watts down to 5 %; False for the model's watts."""

    @property
    def same(self) -> tuple[str, str, int, str]:
        """What a second measurement of the same would share."""
        return self.key, self.worker_class, self.workers, self.kernels


def default_path() -> Path:
    """Where this machine's measurements are kept, and looked for."""
    return cache_root() / "calibration" / f"measured-{platform.node() or 'host'}.json"


def read(path: Path) -> dict[str, Any]:
    """Read the file; an empty record where there is none. Raises MeasuredFileError."""
    if not path.exists():
        return {"file_version": FILE_VERSION, "checks": [], "tasks": []}
    try:
        record = records.read_json(path)
        for task in record["tasks"]:
            as_measurement(task)
    except (ValueError, KeyError, TypeError) as error:
        raise MeasuredFileError(
            f"{path} is no file of experiments.calibrate ({error}); move it away"
        ) from error
    if record.get("file_version") != FILE_VERSION:
        raise MeasuredFileError(
            f"{path} has version {record.get('file_version')}, this checkout writes {FILE_VERSION}; move it away"
        )
    return record


def as_measurement(task: Mapping[str, Any]) -> TaskMeasurement:
    """A row of the file; null is NaN. Raises TypeError where fields are missing or unknown."""
    fields: dict[str, Any] = {key: math.nan if value is None else value for key, value in task.items()}
    return TaskMeasurement(**fields)


def with_measurement(record: Mapping[str, Any], found: TaskMeasurement) -> dict[str, Any]:
    """The record with a measurement in place of an earlier one of the same."""
    others = [task for task in record["tasks"] if as_measurement(task).same != found.same]
    return {**record, "tasks": [*others, asdict(found)]}


def measured_seconds(record: Mapping[str, Any], workers: int, kernels: str) -> dict[str, dict[str, float]]:
    """Median seconds of tasks alone by worker class and key, of so many workers and these kernels."""
    found: dict[str, dict[str, float]] = {}
    for known in map(as_measurement, record["tasks"]):
        if (known.workers, known.kernels) == (workers, kernels):
            found.setdefault(known.worker_class, {})[known.key] = known.seconds
    return found


def measured_watts(path: Path, workers: int, kernels: str) -> dict[str, dict[str, float]]:
    """Watts above idle by worker class and key, as counters gave them for so many workers and these kernels."""
    found: dict[str, dict[str, float]] = {}
    for task in read(path)["tasks"]:
        known = as_measurement(task)
        fits = (known.workers, known.kernels, known.quality) == (workers, kernels, "measured")
        if fits and math.isfinite(known.watts):
            found.setdefault(known.worker_class, {})[known.key] = known.watts
    return found
