"""`python -m experiments.calibrate_tile FOLDER`: measure every kind of task of one tile size, each alone.

`experiments.calibrate` starts it and follows its events. Each kind goes to the file, whole, as soon as it is measured;
a kind that the file has is not measured again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dahl import starpu
from dahl.context import Context
from dahl.costs import MeasuredCosts
from dahl.training import Trainer
from energy import EnergySession, IdleBaseline, IdleWatts, PowerStream, Selection
from experiments import environment, measured, records
from experiments.alone import Alone, TaskRunner, model_watts
from experiments.calibrate_check import run_mixed
from experiments.calibration import kernels_digest
from experiments.events import EventWriter
from experiments.idle import check_drift
from experiments.in_training import (
    InTraining,
    around_tasks,
    as_in_training,
    lengths,
    run_batches,
    sigma_of,
    with_in_training,
)
from experiments.measured import TaskMeasurement
from experiments.policies import load_scheduler
from experiments.tables import power_stream_path
from experiments.training import make_context, make_trainer
from experiments.trial import report
from experiments.validation import CHECKOUT
from experiments.workload import Workload, load_workload

LEAST_RATE_HZ = 100.0
"""How often the counters are read at least, so that the check sees tasks apart that are."""


class CalibrationUnfitError(RuntimeError):
    """This machine's tasks cannot be measured each alone."""


@dataclass(frozen=True)
class _Job:
    """What a child process is to do."""

    file: Path
    fresh: bool
    limit_s: float
    idle_s: float
    schedulers: Mapping[str, Mapping[str, Any]]
    """Under which mini-batches run as in training, by name."""


def run(folder: Path, events: EventWriter) -> dict[str, Any]:
    """Measure what the folder's configuration asks for; returns how many kinds there are and were measured."""
    config = records.read_config(folder)
    asked = config["calibrate"]
    job = _Job(
        Path(asked["file"]),
        bool(asked["fresh"]),
        float(asked["limit_s"]),
        float(asked["idle_s"]),
        asked["schedulers"],
    )
    workload = load_workload(config, events)
    result: dict[str, Any] = workload.runtime(folder).run(_inside, folder, workload, job, events)
    for name, scheduler in job.schedulers.items():
        _train(folder, workload, job, name, scheduler, events)
    return result


def _train(
    folder: Path,
    workload: Workload,
    job: _Job,
    name: str,
    scheduler: Mapping[str, Any],
    events: EventWriter,
) -> None:
    """Run mini-batches as in training under a scheduler, unless the file has them, and add them to it."""
    known = {as_in_training(row).same for row in measured.read(job.file).get("in_training", [])}
    config = {**workload.config, "scheduler": scheduler}
    policy = load_scheduler(scheduler)

    def inside(runtime: starpu.Runtime) -> InTraining | None:
        worker_class, workers = runtime.workers[0].worker_class, len(runtime.workers)
        alone = measured.measured_seconds(measured.read(job.file), workers, kernels_digest())
        own = replace(workload, config=config, scheduler=policy, costs=MeasuredCosts(alone))
        found = InTraining(
            model=config["model"],
            batch_size=int(config["batch_size"]),
            tile=int(config["tile"]),
            fused=own.fuse,
            workers=workers,
            worker_class=worker_class,
            kernels=kernels_digest(),
            scheduler=name,
            tasks=0,
            seconds={},
            counts={},
            sigma=0.0,
            around={},
        )
        if found.same in known and not job.fresh:
            return None
        events.emit("calibrating", message=f"mini-batches as training runs them, under {name}")
        context = make_context(runtime, own)
        trace = run_batches(runtime, make_trainer(context, own))
        seconds, counts = lengths(trace, context.footprints)
        around = asdict(around_tasks(trace))
        return replace(
            found,
            tasks=int(trace.size),
            seconds=seconds,
            counts=counts,
            sigma=sigma_of(trace),
            around=around,
        )

    runtime = replace(workload, config=config, scheduler=policy).runtime(folder / name)
    found = runtime.run(inside)
    if found is not None:
        records.write_json(job.file, with_in_training(measured.read(job.file), found))


def _inside(
    runtime: starpu.Runtime, folder: Path, workload: Workload, job: _Job, events: EventWriter
) -> dict[str, Any]:
    classes = sorted({worker.worker_class for worker in runtime.workers})
    if len(classes) > 1:
        raise CalibrationUnfitError(
            f"there are workers of several classes ({', '.join(classes)}): a counter does not tell them apart"
        )
    stream = power_stream_path(folder)
    session = EnergySession(
        workload.sources.sources,
        stream=PowerStream(stream),
        rate_hz=_at_least(workload.config["energy"]["rate_hz"], LEAST_RATE_HZ),
    )
    with session:
        context = make_context(runtime, workload)
        trainer = make_trainer(context, workload)
        return _Calibration(runtime, workload, job, events, session, stream).measure(context, trainer)


class _Calibration:
    def __init__(
        self,
        runtime: starpu.Runtime,
        workload: Workload,
        job: _Job,
        events: EventWriter,
        session: EnergySession,
        stream: Path,
    ) -> None:
        self._runtime, self._workload, self._job, self._events = runtime, workload, job, events
        self._session, self._stream = session, stream
        self._runner = TaskRunner(runtime, session, job.limit_s)
        self._kernels = kernels_digest()
        self._record = measured.read(job.file)

    def measure(self, context: Context, trainer: Trainer) -> dict[str, Any]:
        """Measure what the file lacks, kind by kind."""
        trainer.rehearse(2)  # every array holds what training makes of it
        kinds = _kinds(context)
        known = {measured.as_measurement(task).same for task in self._record["tasks"]}
        todo = {key: task for key, task in kinds.items() if self._job.fresh or self._same(key) not in known}
        self._events.emit("kinds", total=len(kinds), known=len(kinds) - len(todo))
        if not todo:
            return {"kinds": len(kinds), "measured": 0}
        baseline = self._prepare()
        for key, task in todo.items():
            found = self._measurement(key, task, self._runner.measure(key, task))
            self._record = measured.with_measurement(self._record, found)
            records.write_json(self._job.file, self._record)
            self._events.emit("measured", **asdict(found))
        self._check(trainer, kinds)
        if baseline is not None:
            self._record["energy"]["idle_drift"] = check_drift(
                self._session, self._runtime, baseline, self._events
            )
        records.write_json(self._job.file, self._record)
        return {"kinds": len(kinds), "measured": len(todo)}

    def _prepare(self) -> IdleBaseline | None:
        """The idle machine's watts and the runtime's own, and what the file says of the machine."""
        baseline = None
        if self._runner.measures:
            seconds = max(self._job.idle_s, 4 * self._runner.burst_s)
            self._events.emit("calibrating", message=f"idle baseline: reading the counters for {seconds:g} s")
            baseline = IdleBaseline(seconds, 0.0, {}, self._paused(seconds))
            self._session.idle_w = baseline.watts
            self._runner.measure_runtime()
        self._record |= {
            "file_version": measured.FILE_VERSION,
            "machine": environment.collect(CHECKOUT),
            "versions": {"starpu": starpu.version(self._workload.variant), **environment.versions()},
            "energy": {
                "sources": _sources(self._workload.sources),
                "channels": self._runner.channels,
                "idle_w": baseline.to_json()["paused"] if baseline else {},
                "runtime_w": self._runner.runtime_w,
            },
        }
        return baseline

    def _paused(self, seconds: float) -> dict[str, IdleWatts]:
        self._runtime.pause()
        try:
            return self._session.measure_idle(seconds)
        finally:
            self._runtime.resume()

    def _same(self, key: str) -> tuple[str, str, int, str]:
        worker_class = self._runtime.workers[0].worker_class
        return key, worker_class, len(self._runtime.workers), self._kernels

    def _measurement(self, key: str, task: starpu.RecordedTask, alone: Alone) -> TaskMeasurement:
        key, worker_class, workers, kernels = self._same(key)
        low_s, median_s, high_s = np.percentile(alone.lengths_s, [2.5, 50, 97.5])
        mean_s = float(alone.lengths_s.mean())
        watts, low_w, high_w, own_s = alone.watts, alone.watts_low, alone.watts_high, mean_s
        if not self._runner.measures:
            watts = model_watts(self._workload.power_model(self._runtime.workers), task.codelet.name, 0)
            own_s = float(median_s)  # a counter knows that a task that had to wait for its core drew nothing
        return TaskMeasurement(
            operation=task.codelet.name,
            key=key,
            tile=int(self._workload.config["tile"]),
            worker_class=worker_class,
            workers=workers,
            kernels=kernels,
            repeats=len(alone.lengths_s),
            seconds=float(median_s),
            seconds_low=float(low_s),
            seconds_high=float(high_s),
            seconds_mean=mean_s,
            watts=watts,
            watts_low=low_w,
            watts_high=high_w,
            energy_j=watts * own_s,
            quality="measured" if self._runner.measures else "estimated",
            resolved=alone.resolved,
        )

    def _check(self, trainer: Trainer, kinds: Mapping[str, starpu.RecordedTask]) -> None:
        """Add how well the watts foretell training to the file."""
        if not self._runner.measures:
            return
        self._events.emit("calibrating", message="checking against mini-batches as training runs them")
        watts = {task["key"]: measured.as_measurement(task).watts for task in self._record["tasks"]}
        by_footprint = {task.footprint: (key, watts.get(key, math.nan)) for key, task in kinds.items()}
        mixed = run_mixed(self._runtime, self._session, self._runner, trainer.rehearse, self._stream)
        tile = int(self._workload.config["tile"])
        check = {"tile": tile, **mixed.check(by_footprint)}
        self._record["checks"] = [*(c for c in self._record["checks"] if c["tile"] != tile), check]
        self._events.emit("checked", **check)


def _kinds(context: Context) -> dict[str, starpu.RecordedTask]:
    """The first task of each kind, by its key."""
    found: dict[str, starpu.RecordedTask] = {}
    for graph in context.graphs:
        for task in graph.tasks():
            found.setdefault(context.footprints[task.footprint], task)
    return found


def _at_least(rate_hz: Any, least_hz: float) -> Any:
    """A rate, or a mapping of rates by source, raised to this."""
    if isinstance(rate_hz, Mapping):
        return {name: max(least_hz, rate) for name, rate in rate_hz.items()}
    return max(least_hz, rate_hz)


def _sources(selection: Selection) -> dict[str, str]:
    return {source.name: source.quality for source in selection.sources}


def main() -> int:
    """Measure as asked."""
    return report("python -m experiments.calibrate_tile", __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
