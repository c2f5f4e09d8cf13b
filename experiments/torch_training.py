"""The course of a trial in PyTorch, in the same windows and with the same records as in StarPU."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from dahl.starpu.trace import DECISION, TRACE
from energy import EnergySession, LivePage, power_model_for
from experiments import records
from experiments.accounting import Meter, open_session
from experiments.cpu_time import CpuTime, cpu_time_model
from experiments.events import EventWriter
from experiments.torch_trainer import TorchOptions, TorchTrainer
from experiments.training import (
    count_epochs,
    describe_energy,
    energy_words,
    hyperparameters,
    make_guard,
    tell_absent,
)
from experiments.workload import Workload


@final
class TorchThreads:
    """PyTorch's threads as an `experiments.engine.Engine`: a clock and no tasks."""

    def __init__(self, count: int) -> None:
        self.workers = tuple(f"thread {number}" for number in range(count))
        self.codelets: tuple[Any, ...] = ()
        torch.set_num_threads(count)

    def now_s(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return time.monotonic()

    def take_trace(self) -> np.ndarray:
        """No task."""
        return np.empty(0, TRACE)

    def take_decisions(self) -> np.ndarray:
        """No decision."""
        return np.empty(0, DECISION)

    def take_transfers(self) -> np.ndarray:
        """No transfer: one memory."""
        return np.zeros((1, 1))

    def pause(self) -> None:
        """Nothing to do: threads without work sleep."""

    def resume(self) -> None:
        """Nothing to do."""


def train(run_dir: Path, workload: Workload, events: EventWriter) -> dict[str, Any]:
    """Run the trial; returns the fields of its `finished` event. Raises what training raises."""
    config = workload.config
    cores = len(os.sched_getaffinity(0))
    threads = TorchThreads(config["workers"] or cores)
    model = power_model_for(config["energy"]["model"], ["cpu"] * len(threads.workers))
    cpu_time = CpuTime(threads.now_s, max(cores, len(threads.workers)))
    with ExitStack() as stack:
        page = stack.enter_context(closing(LivePage()))
        page.tie_clock(0.0)
        session = open_session(
            run_dir,
            workload.sources.sources,
            cpu_time_model(model, cores),
            config["energy"],
            page,
            simulated=False,
        )
        stack.enter_context(session)
        meter = Meter(
            run_dir,
            threads,
            session,
            events,
            write_tasks=False,
            write_decisions=False,
            guard=make_guard(workload),
            refuse_disturbed=config["guard"] == "refuse",
            cpu_time=cpu_time,
        )
        stack.enter_context(closing(meter))
        _tell_what_runs(run_dir, workload, session, events)
        with meter.window("compilation"):
            trainer = _trainer(workload)
            trainer.warm_up()
        found = count_epochs(run_dir, threads, trainer, session, meter, workload, events)
        return {"simulated": False, "weights_sha256": trainer.weights_sha256(), **found}


def _trainer(workload: Workload) -> TorchTrainer:
    framework = workload.config["framework"]
    options = TorchOptions(**{key: value for key, value in framework.items() if key != "name"})
    whole = replace(workload, config={**workload.config, "tile": workload.config["batch_size"]})
    return TorchTrainer(workload.model, workload.dataset, hyperparameters(whole), options)


def _tell_what_runs(run_dir: Path, workload: Workload, session: EnergySession, events: EventWriter) -> None:
    """Add PyTorch and the energy sources to `environment.json`, and tell the supervisor."""
    path = run_dir / records.ENVIRONMENT_NAME
    environment = records.read_json(path)
    environment["torch"] = {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{key: value for key, value in workload.config["framework"].items() if key != "name"},
    }
    environment["energy"] = describe_energy(workload, session)
    records.write_json(path, environment)
    events.emit(
        "started",
        simulated=False,
        workers=torch.get_num_threads(),
        torch=torch.__version__,
        images_per_epoch=len(workload.dataset.train.labels),
        energy=energy_words(workload, session),
    )
    tell_absent(workload, events)
