"""Expected seconds of a workload's tasks on this machine, measured once and kept in the project's cache.

`python -m experiments.calibration RUN_DIR OUT.json` measures, in a process of its own, so that the trial's StarPU,
weights and windows know nothing of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import dahl.ops
from dahl import starpu
from dahl.costs import MeasuredCosts
from dahl.starpu.kernel import cache_root, sources_digest
from dahl.training import Trainer
from experiments import measured, records
from experiments.events import EventWriter
from experiments.workers import gpu_names

if TYPE_CHECKING:
    from experiments.workload import Workload

REPEATS = 30
WARM_UP = 5
"""Repeats at the start that are not counted: caches are cold, memory is not there yet."""


class CalibrationError(RuntimeError):
    """The workload's tasks could not be measured; the trial's log has the reason."""


def ensure_costs(run_dir: Path, workload: Workload, events: EventWriter) -> MeasuredCosts:
    """Return the measured costs of the workload's tasks; lengths that the cache lacks are measured now, in seconds.

    Joules take the watts of each kind of task from `experiments.calibrate`'s file where counters gave them, else the
    power model's.
    """
    path = cache_root() / "calibration" / f"{signature(workload)}.json"
    if not path.exists():
        events.emit(
            "calibrating", message="measuring the tasks' lengths on this machine (once, a few seconds)"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "experiments.calibration", str(run_dir), str(path)]
        if subprocess.run(command, check=False).returncode or not path.exists():
            raise CalibrationError("the tasks' lengths could not be measured")
    return MeasuredCosts(records.read_json(path)["seconds"], _watts(workload))


def _watts(workload: Workload) -> dict[str, dict[str, float]]:
    """What `experiments.calibrate` measured the tasks of this machine to draw; none where it has not yet."""
    workers = workload.config["workers"] or len(os.sched_getaffinity(0))
    return measured.measured_watts(measured.default_path(), workers, kernels_digest())


def kernels_digest() -> str:
    """Return a digest of the compiled kernels: their sources, Numba's version and the CPU."""
    return sources_digest(Path(dahl.ops.__file__).parent)


def signature(workload: Workload) -> str:
    """Return a digest of what the lengths of the workload's tasks depend on."""
    config, dataset = workload.config, workload.dataset
    facts = {
        "model": config["model"],
        "batch_size": config["batch_size"],
        "tile": config["tile"],
        "fuse": workload.fuse,
        "workers": config["workers"],
        "images": [
            dataset.image_shape,
            len(dataset.train.labels),
            len(dataset.test.labels),
            len(dataset.classes),
        ],
        "kernels": kernels_digest(),
        "gpus": [config.get("gpu_workers", 0), *gpu_names(config)],
        "starpu": starpu.version(workload.variant),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=list).encode()).hexdigest()[:24]


def measure(trainer: Trainer, runtime: starpu.Runtime, footprints: list[str]) -> dict[str, dict[str, float]]:
    """Return the median seconds of each kind of task by worker class, while all workers are at work."""
    trainer.rehearse(WARM_UP)
    runtime.take_trace()
    trainer.rehearse(REPEATS)
    trace = runtime.take_trace()
    seconds: dict[str, dict[str, float]] = {}
    for worker_class in {worker.worker_class for worker in runtime.workers}:
        ids = [worker.id for worker in runtime.workers if worker.worker_class == worker_class]
        own = trace[np.isin(trace["worker"], ids)]
        lengths = own["end_s"] - own["start_s"]
        seconds[worker_class] = {
            key: float(np.median(lengths[own["footprint"] == number]))
            for number, key in enumerate(footprints)
            if (own["footprint"] == number).any()
        }
    return seconds


def calibrate(config: Mapping[str, Any], run_dir: Path, out: Path) -> None:
    """Measure a run's workload under a policy that needs no expectations, and write ``out`` whole.

    With CPU and GPU workers each kind of task runs on both: under StarPU's eager the faster would take all of a few.
    """
    from experiments.granularity import with_tile
    from experiments.training import make_context, make_trainer
    from experiments.workload import load_workload

    eager: dict[str, Any] = {"_target_": "schedulers.StarPUScheduler", "name": "eager"}
    if config.get("gpu_workers", 0) != 0 and config["workers"] != 0:
        eager = {"_target_": "experiments.every_class.EveryClass"}
    events = EventWriter(None)
    workload = with_tile(run_dir, load_workload({**config, "scheduler": eager}, events), events)

    def inside(runtime: starpu.Runtime) -> dict[str, dict[str, float]]:
        context = make_context(runtime, workload)
        return measure(make_trainer(context, workload), runtime, context.footprints)

    seconds = workload.runtime(run_dir / "calibration").run(inside)
    records.write_json(out, {"unit": "s", "repeats": REPEATS, "seconds": seconds})


def main() -> int:
    """Measure as asked."""
    parser = argparse.ArgumentParser(prog="python -m experiments.calibration", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="the run's folder, with its config.yaml")
    parser.add_argument("out", type=Path, help="the file to write")
    asked = parser.parse_args()
    calibrate(records.read_config(asked.run_dir), asked.run_dir, asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
