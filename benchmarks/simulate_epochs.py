"""Epochs on a simulated node, in a process that ``benchmarks.simulation`` starts; its job and answer are JSON."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
from omegaconf import OmegaConf

import schedulers
from dahl import models, starpu
from dahl.context import Context
from dahl.datasets import Synthetic
from dahl.training import Hyperparameters, Trainer
from experiments.platform import SimulatedNode
from experiments.policies import load_scheduler
from experiments.validation import CONFIGS
from experiments.workload import load_platform, machine_watts


def _config(group: str, name: str) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONFIGS / group / f"{name}.yaml")))


def _node(name: str) -> SimulatedNode:
    node = load_platform(_config("platform", name))
    if node is None:
        raise ValueError(f"platform {name} is not simulated")
    return node


def _scheduler(name: str) -> Any:
    made = load_scheduler(_config("scheduler", name))
    return made.name if isinstance(made, schedulers.StarPUScheduler) else schedulers.CompiledPolicy(made)


def run(job: dict[str, Any]) -> dict[str, float]:
    """Simulate epochs until at least so many tasks ran; returns what they took on this machine."""
    node = _node(job["platform"])
    dataset = Synthetic(train_size=job["images"], test_size=100).load()
    model = getattr(models, job["model"])()

    def inside(runtime: starpu.Runtime) -> dict[str, float]:
        context = Context(runtime, node.costs, machine_watts(node.power_model(runtime.workers)))
        hyperparameters = Hyperparameters(batch_size=job["batch"], tile=job["tile"])
        trainer = Trainer(context, model, dataset, hyperparameters)
        wall_s, processor_s, simulated_s = -time.perf_counter(), -time.process_time(), 0.0
        epoch = 0
        traces: list[np.ndarray] = []  # kept, as a run keeps an epoch's for its joules
        while sum(trace.size for trace in traces) < max(1, job["tasks"]):
            epoch += 1
            simulated_s += trainer.run_epoch(epoch).seconds
            traces.append(runtime.take_trace())
        wall_s, processor_s = wall_s + time.perf_counter(), processor_s + time.process_time()
        return {
            "wall_s": wall_s,
            "processor_s": processor_s,
            "simulated_s": simulated_s,
            "tasks": sum(trace.size for trace in traces),
            "epochs": epoch,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    with tempfile.TemporaryDirectory() as home:
        return starpu.Runtime(
            platform=node.platform,
            scheduler=_scheduler(job["scheduler"]),
            watts=lambda workers: machine_watts(node.power_model(workers)),
            home=Path(home),
        ).run(inside)


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
