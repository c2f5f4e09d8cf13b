"""The course of a trial inside StarPU: compilation, baseline, epochs and evaluations, each in its window."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dahl import ops, starpu
from dahl.context import Context
from dahl.costs import MeasuredCosts
from dahl.recording_fused import fused_kernels
from dahl.starpu.compile_ahead import compile_ahead
from dahl.starpu.kernel import kernels_folder
from dahl.tiling import tiling
from dahl.training import Hyperparameters, Trainer
from energy import EnergySession, IdleBaseline, LivePage
from experiments import records
from experiments.accesses import write_accesses
from experiments.accounting import Meter, open_session
from experiments.bounds import EpochWork, describe_graphs, epoch_work, write_graph
from experiments.cpu_time import CpuTime, cpu_time_model
from experiments.engine import Engine
from experiments.environment import kernels_of_this_processor
from experiments.epochs import Epochs
from experiments.events import EventWriter
from experiments.granularity import candidates
from experiments.graph_runner import GraphRunner
from experiments.guard import Guard
from experiments.idle import check_drift, take_baseline
from experiments.interrupts import cancel_on_interrupt
from experiments.schemas import epoch_schema
from experiments.tables import TableStream
from experiments.workload import Workload, machine_watts

if TYPE_CHECKING:  # PyTorch need not be there
    from experiments.torch_trainer import TorchTrainer


def train(run_dir: Path, workload: Workload, events: EventWriter) -> dict[str, Any]:
    """Run the trial; returns the fields of its `finished` event.

    Raises what training raises (KernelError, LossIsNotANumberError, SourceUnavailableError...), and
    KeyboardInterrupt where the user stopped it.
    """
    page = LivePage()
    runtime = workload.runtime(run_dir, page.array)
    with closing(page), cancel_on_interrupt(runtime.cancel):
        try:
            return runtime.run(_inside, run_dir, workload, events, page)
        except starpu.CancelledError as error:
            raise KeyboardInterrupt from error


def _inside(
    runtime: starpu.Runtime, run_dir: Path, workload: Workload, events: EventWriter, page: LivePage
) -> dict[str, Any]:
    config = workload.config
    page.tie_clock(runtime.now_s() - time.monotonic())
    model, cpu_time = workload.power_model(runtime.workers), None
    if config["energy"].get("activity") == "cpu_time":
        cores = len(os.sched_getaffinity(0))
        model, cpu_time = cpu_time_model(model, cores), CpuTime(runtime.now_s, cores)
    session = open_session(
        run_dir,
        workload.sources.sources,
        model,
        config["energy"],
        page,
        simulated=workload.simulated,
    )
    with ExitStack() as stack:
        stack.enter_context(session)
        meter = stack.enter_context(
            closing(
                Meter(
                    run_dir,
                    runtime,
                    session,
                    events,
                    write_tasks=config["trace"],
                    write_decisions=workload.explains,
                    write_transfers=workload.variant == "cuda",
                    link_joule_per_byte=workload.link_joule_per_byte(runtime.workers),
                    guard=make_guard(workload),
                    refuse_disturbed=config["guard"] == "refuse",
                    cpu_time=cpu_time,
                )
            )
        )
        _tell_what_runs(run_dir, runtime, workload, session, events)
        with meter.window("compilation"):
            context = make_context(runtime, workload)
            trainer = lay_out(context, workload)
        if isinstance(trainer, Trainer):
            _tell_the_tasks(run_dir, trainer, workload)
        work = _record_work(run_dir, context, trainer, workload) if workload.simulated else None
        if config["trace"] and not workload.simulated:
            write_accesses(run_dir, trainer.epoch_graphs)
        found = count_epochs(
            run_dir, runtime, trainer, session, meter, workload, events, work if config["bound"] else None
        )
        weights = None
        if isinstance(trainer, Trainer) and not workload.simulated:
            weights = trainer.weights_sha256()
        return {
            "simulated": workload.simulated,
            "weights_sha256": weights,
            "moved_bytes": meter.moved_bytes,
            **found,
        }


def count_epochs(
    run_dir: Path,
    engine: Engine,
    trainer: Trainer | TorchTrainer | GraphRunner,
    session: EnergySession,
    meter: Meter,
    workload: Workload,
    events: EventWriter,
    work: EpochWork | None = None,
) -> dict[str, Any]:
    """Train the epochs between an idle baseline and its check; returns what the `finished` event says of the joules."""
    baseline = take_baseline(session, engine, workload.config, events)
    with closing(TableStream(run_dir, "epochs", epoch_schema(meter.channels))) as table, meter.around("run"):
        Epochs(engine, trainer, meter, workload, events, table, work).run()
    drift = check_drift(session, engine, baseline, events) if baseline else {}
    if baseline:
        _record_idle(run_dir, baseline, drift)
    return {
        "idle_drifted": any(found["drifted"] for found in drift.values()) if drift else None,
        "energy_trouble": session.trouble,
    }


def _record_work(
    run_dir: Path, context: Context, trainer: Trainer | GraphRunner, workload: Workload
) -> EpochWork:
    """Write down an epoch's tasks, and return them with what no schedule of them beats."""
    graphs = trainer.epoch_graphs
    workers = context.runtime.workers
    work = epoch_work(context, graphs, workload.power_model(workers), workload.link_joule_per_byte(workers))
    write_graph(run_dir, work, describe_graphs(context, graphs))
    return work


def _record_idle(run_dir: Path, baseline: IdleBaseline, drift: dict[str, Any]) -> None:
    """Add the idle baseline and its check to `environment.json`."""
    path = run_dir / records.ENVIRONMENT_NAME
    environment = records.read_json(path)
    environment["energy"] |= {"idle_baseline": baseline.to_json(), "idle_drift": drift}
    records.write_json(path, environment)


def make_guard(workload: Workload) -> Guard | None:
    """What watches the load of others; None in a simulation, and where it is off."""
    if workload.simulated or workload.config["guard"] == "off":
        return None
    return Guard(workload.config["max_foreign_cores"])


def compile_kernels(workload: Workload, events: EventWriter) -> None:
    """Compile the fused kernels that the cache on disk lacks, all at once; others are compiled where they are met."""
    if workload.simulated or workload.graph:
        return
    if not kernels_folder(Path(ops.__file__).parent).exists():
        events.emit("calibrating", message="compiling kernels (the first time takes up to a minute)")
    if workload.fuse:
        config, dataset = workload.config, workload.dataset
        model, workers = (
            workload.model.with_classes(len(dataset.classes)),
            config["workers"] or len(os.sched_getaffinity(0)),
        )
        sizes = candidates(config["batch_size"]) if config["tile"] == "auto" else [config["tile"]]
        tilings = [tiling(size, ["cpu"] * workers) for size in sizes]
        counts = [len(cut.tiles(config["batch_size"])) for cut in tilings]
        compile_ahead(fused_kernels(model, dataset.image_shape, counts, workers))


def make_context(runtime: starpu.Runtime, workload: Workload) -> Context:
    """Return a context that knows what is known of the tasks' seconds and joules."""
    watts = machine_watts(workload.power_model(runtime.workers))
    return Context(runtime, workload.costs, watts, workload.estimates)


def lay_out(context: Context, workload: Workload) -> Trainer | GraphRunner:
    """Lay the workload out on a runtime."""
    return GraphRunner(context, workload.graph) if workload.graph else make_trainer(context, workload)


def make_trainer(context: Context, workload: Workload) -> Trainer:
    """Lay the training of a model out on a runtime."""
    return Trainer(context, workload.model, workload.dataset, hyperparameters(workload))


def hyperparameters(workload: Workload) -> Hyperparameters:
    """Return what is trained how."""
    config = workload.config
    return Hyperparameters(
        batch_size=config["batch_size"],
        tile=config["tile"],
        learning_rate=config["learning_rate"],
        momentum=config["momentum"],
        weight_decay=config["weight_decay"],
        seed=config["seed"],
        fuse=workload.fuse,
    )


def _tell_what_runs(
    run_dir: Path, runtime: starpu.Runtime, workload: Workload, session: EnergySession, events: EventWriter
) -> None:
    """Add StarPU and the energy sources to `environment.json`, and tell the supervisor."""
    variant = workload.variant
    path = run_dir / records.ENVIRONMENT_NAME
    environment = records.read_json(path)
    environment["starpu"] = {
        "version": starpu.version(variant),
        "variant": variant,
        "workers": [worker.name for worker in runtime.workers],
    }
    if "without_gpu_because" in workload.config:
        environment["starpu"]["without_gpu_because"] = workload.config["without_gpu_because"]
    environment["kernels"] = kernels_of_this_processor()
    environment["energy"] = {**describe_energy(workload, session), "task_watts": _task_watts(workload)}
    records.write_json(path, environment)
    events.emit(
        "started",
        simulated=workload.simulated,
        workers=len(runtime.workers),
        starpu=starpu.version(variant),
        images_per_epoch=0 if workload.graph else len(workload.dataset.train.labels),
        energy=energy_words(workload, session),
    )
    tell_absent(workload, events)


def describe_energy(workload: Workload, session: EnergySession) -> dict[str, Any]:
    """Where the joules come from, as `environment.json` keeps it."""
    counted = workload.config["energy"].get("activity") == "cpu_time" or _is_torch(workload)
    return {
        "sources": {source.name: source.quality for source in workload.sources.sources},
        "channels": [*session.channels, *session.model_channels],
        "loops": session.loops,
        "left_out": dict(pair for source in workload.sources.sources for pair in source.left_out),
        "absent": {
            source.name: {"why": source.why, "remedy": source.remedy} for source in workload.sources.absent
        },
        "activity": "cpu_time" if counted else "tasks",
    }


def tell_absent(workload: Workload, events: EventWriter) -> None:
    """Say so where no counter can be read."""
    absent = workload.sources.absent
    if absent and not workload.sources.sources:
        tried = ", ".join(source.name for source in absent)
        events.emit(
            "notice", message=f"no counter can be read ({tried}); `python -m experiments.doctor` says why"
        )


def _is_torch(workload: Workload) -> bool:
    return bool(workload.config["framework"]["name"] == "torch")


def _task_watts(workload: Workload) -> str | None:
    """Where the joules that policies see of each kind of task come from; None where they see none."""
    if workload.costs is None:
        return None
    measured = isinstance(workload.costs, MeasuredCosts) and any(workload.costs.net_w.values())
    return "experiments.calibrate" if measured else "power model"


def _tell_the_tasks(run_dir: Path, trainer: Trainer, workload: Workload) -> None:
    """Add what a mini-batch is cut into to `environment.json`."""
    path = run_dir / records.ENVIRONMENT_NAME
    tasks = {
        "fused": workload.fuse,
        "tile": workload.config["tile"],
        "tiles": list(trainer.tiles),
        "per_batch": trainer.tasks_per_batch,
    }
    records.write_json(path, {**records.read_json(path), "tasks": tasks})


def energy_words(workload: Workload, session: EnergySession) -> str:
    """Where the joules come from."""
    words = [f"{source.name} ({source.quality})" for source in workload.sources.sources]
    if session.model_channels:
        quality = "simulated" if workload.simulated else "estimated"
        words.append(f"assumed watts ({quality})")
    return "joules from " + " and ".join(words)
