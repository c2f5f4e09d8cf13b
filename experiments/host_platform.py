"""`python -m experiments.host_platform --out configs/platform/mine.yaml`: this machine as a platform to simulate.

From the file of `experiments.calibrate`: lengths of every kind of task as training runs it, where it was measured so,
else alone; what the runtime takes around a task under each scheduler; watts as counters gave them, else the power
model's. `python -m experiments.run platform=mine fuse=false` then simulates it.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dahl.starpu.overheads import STARPU_GAP_S
from experiments.calibration import kernels_digest
from experiments.in_training import InTraining, as_in_training
from experiments.measured import (
    MeasuredFileError,
    TaskMeasurement,
    as_measurement,
    default_path,
    measured_seconds,
    read,
)
from experiments.platform import ANY_SCHEDULER
from experiments.validation import CONFIGS

_REMEDY = "python -m experiments.calibrate model=... tile=[...]"


def host_platform(
    record: Mapping[str, Any],
    *,
    name: str,
    workers: int,
    kernels: str,
    assumed: Mapping[str, Any],
) -> dict[str, Any]:
    """The fields of a `SimulatedNode` that is the machine that was measured, with so many workers.

    `assumed` is a power model of `configs/energy/`, for what no counter told. Raises MeasuredFileError where nothing
    was measured for so many workers and these kernels.
    """
    alone = measured_seconds(record, workers, kernels)
    rows = [
        row
        for row in map(as_in_training, record.get("in_training", []))
        if (row.workers, row.kernels) == (workers, kernels)
    ]
    if not alone and not rows:
        raise MeasuredFileError(
            f"nothing was measured with {workers} workers and these kernels; run {_REMEDY} workers={workers}"
        )
    (worker_class,) = {*alone, *(row.worker_class for row in rows)}
    seconds = {**alone.get(worker_class, {}), **_mean_lengths(rows)}
    node: dict[str, Any] = {
        "_target_": "experiments.platform.SimulatedNode",
        "simulated": True,
        "name": name,
        "base_w": _base_w(record, assumed),
        "cpu": {"core": {"count": workers, **_watts(record, workers, kernels, assumed), "seconds": seconds}},
        "gpu": {},
    }
    if rows:
        processors = record.get("machine", {}).get("processors")
        node["noise"] = round(_weighted((row.sigma, row.tasks) for row in rows), 4)
        node["around_us"] = _around_us(rows, shared=processors is not None and workers >= processors)
    return node


def _mean_lengths(rows: Sequence[InTraining]) -> dict[str, float]:
    """Length of each kind over all tasks that ran in training, under any scheduler."""
    keys = {key for row in rows for key in row.seconds}
    return {
        key: _weighted((row.seconds[key], row.counts[key]) for row in rows if key in row.seconds)
        for key in sorted(keys)
    }


def _around_us(rows: Sequence[InTraining], *, shared: bool) -> dict[str, dict[str, float]]:
    """What the runtime takes around a task beyond what simulated StarPU takes itself, by scheduler."""
    by_name = {name: [row for row in rows if row.scheduler == name] for name in (r.scheduler for r in rows)}
    return {
        ANY_SCHEDULER: _around(rows, shared),
        **{name: _around(own, shared) for name, own in by_name.items()},
    }


def _around(rows: Sequence[InTraining], shared: bool) -> dict[str, float]:
    """`shared`: the submitting thread has no processor of its own, so that workers wait while it submits."""

    def mean(name: str) -> float:
        values = [(row.around[name], row.tasks) for row in rows if _is_known(row.around.get(name))]
        return _weighted(values) if values else 0.0

    wakes = [(row.around["wake_s"], int(row.around["wakes"])) for row in rows if row.around["wakes"] > 0]

    gap_s = max(0.0, mean("gap_s") - STARPU_GAP_S)
    after_s = min(gap_s, mean("after_s"))
    before_s = gap_s - after_s
    wake_s = max(0.0, (_weighted(wakes) if wakes else 0.0) - STARPU_GAP_S - before_s)
    submit_s = mean("submit_s")
    if shared:
        before_s += submit_s
    found = {"before": before_s, "after": after_s, "wake": wake_s, "submit": submit_s}
    return {name: round(1e6 * seconds, 4) for name, seconds in found.items()}


def _is_known(value: Any) -> bool:
    return value is not None and not math.isnan(value)


def _weighted(pairs: Iterable[tuple[float, int]]) -> float:
    values = list(pairs)
    return sum(value * count for value, count in values) / sum(count for _, count in values)


def _base_w(record: Mapping[str, Any], assumed: Mapping[str, Any]) -> float:
    """The paused machine's watts, as its counters gave them."""
    energy = record.get("energy", {})
    idle_w = [
        energy["idle_w"][name]["watts"] for name in energy.get("channels", ()) if name in energy["idle_w"]
    ]
    return float(sum(idle_w)) if idle_w else float(assumed["base_w"])


def _watts(
    record: Mapping[str, Any], workers: int, kernels: str, assumed: Mapping[str, Any]
) -> dict[str, float]:
    """Idle and busy watts of one worker."""

    def fits(task: TaskMeasurement) -> bool:
        same = (task.workers, task.kernels, task.quality) == (workers, kernels, "measured")
        return same and math.isfinite(task.watts)

    tasks = [task for task in map(as_measurement, record["tasks"]) if fits(task)]
    if not tasks:
        return {"idle_w": float(assumed["cpu"]["idle_w"]), "busy_w": float(assumed["cpu"]["busy_w"])}
    # All kinds ran for about as long; a counter's idle watts are the base's already.
    return {"idle_w": 0.0, "busy_w": sum(task.watts for task in tasks) / len(tasks)}


def write_platform(path: Path, node: Mapping[str, Any], comment: str) -> None:
    """Write the platform's file, whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(f"# {comment}\n{OmegaConf.to_yaml(OmegaConf.create(dict(node)))}")
    os.replace(partial, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the platform; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.host_platform", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="the file to write; its stem is the name")
    parser.add_argument("--file", type=Path, help="of experiments.calibrate; default: this machine's own")
    parser.add_argument("--workers", type=int, help="default: as many as there are processors")
    asked = parser.parse_args(arguments)
    workers = asked.workers or len(os.sched_getaffinity(0))
    model: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "energy" / "model.yaml"))
    try:
        record = read(asked.file or default_path())
        node = host_platform(
            record,
            name=asked.out.stem,
            workers=workers,
            kernels=kernels_digest(),
            assumed=model["model"],
        )
        write_platform(asked.out, node, f"this machine with {workers} workers, by experiments.host_platform")
    except (MeasuredFileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    kinds = len(node["cpu"]["core"]["seconds"])
    print(f"{asked.out}: {kinds} kinds of task, {', '.join(node.get('around_us', {})) or 'no scheduler'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
