"""Trainers on a running StarPU, and the small made-up data sets that they train on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from dahl import starpu
from dahl.context import Context
from dahl.costs import Rates, RooflineCosts
from dahl.datasets import Dataset, Synthetic
from dahl.layers import Sequential
from dahl.models import basic_cnn, lenet
from dahl.training import Hyperparameters, Trainer
from schedulers import CompiledPolicy, EagerEnergy

WORKERS = min(2, len(os.sched_getaffinity(0)))
SMALL_LENET = lenet(filters=(4, 6), units=8)
COSTS = RooflineCosts(
    {"cpu": Rates({"conv": 1e10, "gemm": 1e10, "memory": 1e9}, bytes_per_s=5e9, launch_s=1e-6)}
)


def machine_watts(workers: Sequence[starpu.Worker]) -> starpu.MachineWatts:
    return starpu.MachineWatts(10.0, tuple(starpu.WorkerWatts(1.0, 8.0) for _ in workers))


@cache
def synthetic(**parameters: int) -> Dataset:
    return Synthetic(**parameters).load()


ODD = {"channels": 3, "height": 13, "width": 11, "classes": 7, "train_size": 53, "test_size": 19}


@contextmanager
def training(
    dataset: Dataset,
    model: Sequential | None = None,
    *,
    scheduler: str = "lws",
    workers: int = WORKERS,
    trace: bool = False,
    **hyperparameters: Any,
) -> Iterator[tuple[Trainer, starpu.Runtime]]:
    """A trainer on a StarPU that runs inside the block."""
    policy: Any = CompiledPolicy(EagerEnergy()) if scheduler == "EagerEnergy" else scheduler
    with starpu.Runtime(cpu_workers=workers, scheduler=policy, watts=machine_watts, trace=trace) as runtime:
        context = Context(runtime, COSTS, machine_watts(runtime.workers))
        yield Trainer(context, model or basic_cnn(), dataset, Hyperparameters(**hyperparameters)), runtime
