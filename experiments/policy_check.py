"""`python -m experiments.policy_check MODULE:CLASS`: a random task graph on a simulated node under a policy.

Every task has to run once, after those that it waits for, on a worker that can run it.
Prints tasks, simulated seconds and joules as JSON; exits with 1 and one line where something is wrong.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dahl import starpu
from schedulers import CompiledPolicy, PlacementPolicy, PullPolicy

LINK = starpu.Link(bandwidth_bytes_per_s=12e9, latency_s=8e-6)
NODE = starpu.Platform(
    name="policy_check",
    cpu_classes=("big", "big", "little", "little", "little", "big", "big"),  # the last two drive GPUs
    gpus=(starpu.Gpu(worker_class="card", memory_bytes=1 << 30, link=LINK),) * 2,
)
SECONDS = {"big": 2e-3, "little": 5e-3, "card": 3e-4}
WATTS = {"big": (2.0, 12.0), "little": (0.3, 2.0), "card": (10.0, 90.0)}
TASKS, PREDECESSORS, ROUNDS = 60, 3, 3


class CheckError(Exception):
    """A policy cannot be made, or what ran is not the graph."""


def _combine(out: Any, item: Any, index: int, count: int) -> None:
    """Never runs: a simulation takes the expected lengths."""


COMBINE = starpu.Kernel(
    "combine", _combine, (starpu.Operand("out", "rw", 1), starpu.Operand("item", "r", 1, repeated=True))
)
CREATE = starpu.Kernel("create", _combine, (starpu.Operand("out", "rw", 1),))


def random_graph(seed: int) -> list[list[int]]:
    """For each task the earlier ones that it reads from."""
    draw = np.random.default_rng(seed)
    return [
        sorted(draw.choice(task, min(task, int(draw.integers(0, PREDECESSORS + 1))), replace=False).tolist())
        for task in range(TASKS)
    ]


def watts_of(workers: Sequence[starpu.Worker]) -> starpu.MachineWatts:
    """The node's watts."""
    return starpu.MachineWatts(20.0, tuple(starpu.WorkerWatts(*WATTS[w.worker_class]) for w in workers))


def costs_of(workers: Sequence[starpu.Worker], scale: float, footprint: int) -> starpu.Costs:
    """What a task takes on each worker, joules net of idle."""
    lengths = [scale * SECONDS[worker.worker_class] for worker in workers]
    watts = [WATTS[worker.worker_class] for worker in workers]
    joules = [length * (busy - idle) for length, (idle, busy) in zip(lengths, watts, strict=True)]
    return starpu.Costs(lengths, joules, footprint)


def run(runtime: starpu.Runtime, predecessors: Sequence[Sequence[int]], seed: int) -> dict[str, Any]:
    """Run the graph some times over and check its trace; returns what is to be printed."""
    draw = np.random.default_rng(seed)
    kinds = [("cpu", "cuda"), ("cpu",), ("cuda",)]
    codelets = {
        (kernel.name, arches): runtime.codelet(kernel.name, kernel, arches=arches, model="costs")
        for kernel in (COMBINE, CREATE)
        for arches in kinds
    }
    costs = [costs_of(runtime.workers, scale, i) for i, scale in enumerate((0.3, 1.0, 3.0))]
    handles = [runtime.register(np.zeros(50_000, np.float32)) for _ in predecessors]
    graph, arches_of = runtime.graph(), []
    for task, reads in enumerate(predecessors):
        arches = kinds[int(draw.choice(3, p=[0.7, 0.15, 0.15]))]
        kernel = COMBINE if reads else CREATE
        shapes = [(50_000,)] * (1 + bool(reads))
        used = [handles[task], *(handles[other] for other in reads)]
        own = costs[int(draw.integers(0, len(costs)))]
        graph.add(codelets[kernel.name, arches], used, kernel.pack(shapes, {}), costs=own, tag=task)
        arches_of.append(arches)
    runtime.plan([(graph, ROUNDS)])
    for _ in range(ROUNDS):
        graph.submit()
        runtime.wait_all()
        check(runtime.take_trace(), predecessors, arches_of, [worker.arch for worker in runtime.workers])
    return {
        "tasks": ROUNDS * len(predecessors),
        "seconds": runtime.now_s(),
        "joules": runtime.energy_used_j(),
    }


def check(
    trace: np.ndarray,
    predecessors: Sequence[Sequence[int]],
    arches_of: Sequence[Sequence[str]],
    arches: Sequence[str],
) -> None:
    """Raise CheckError where a trace is not one of the graph."""
    if sorted(trace["tag"].tolist()) != list(range(len(predecessors))):
        raise CheckError(f"of {len(predecessors)} tasks {len(trace)} ran, or one twice")
    by_task = trace[np.argsort(trace["tag"])]
    for task, (record, reads) in enumerate(zip(by_task, predecessors, strict=True)):
        arch = arches[record["worker"]]
        if arch not in arches_of[task]:
            raise CheckError(
                f"task {task} ran on worker {record['worker']}, a {arch} worker that cannot run it"
            )
        late = [other for other in reads if by_task["end_s"][other] > record["start_s"]]
        if late:
            raise CheckError(f"task {task} started before tasks {late} had ended, whose results it reads")


def load(name: str, parameters: str) -> PlacementPolicy | PullPolicy:
    """Make the policy MODULE:CLASS. Raises CheckError."""
    module, _, owner = name.partition(":")
    try:
        policy: PlacementPolicy | PullPolicy = getattr(importlib.import_module(module), owner)(
            **json.loads(parameters)
        )
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise CheckError(f"{name}: {error}") from error
    return policy


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.policy_check", description=__doc__)
    parser.add_argument("policy", metavar="MODULE:CLASS")
    parser.add_argument("--parameters", default="{}", help="the policy's fields, as a JSON object")
    parser.add_argument("--seed", type=int, default=0, help="of the graph")
    asked = parser.parse_args(arguments)
    try:
        policy = load(asked.policy, asked.parameters)
        with tempfile.TemporaryDirectory() as home:
            runtime = starpu.Runtime(
                platform=NODE, scheduler=CompiledPolicy(policy), watts=watts_of, home=Path(home)
            )
            print(json.dumps(runtime.run(run, random_graph(asked.seed), asked.seed)))
    except (CheckError, starpu.StarPUError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
