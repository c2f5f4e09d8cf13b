"""Task graphs of a few kinds on a small simulated node, for schedules that are worked out by hand.

``placements`` runs one in a process of its own, since a process holds one simulation.
"""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dahl import starpu
from schedulers import CompiledPolicy, InterpretedPolicy, PlacementPolicy, PullPolicy
from tests.dahl.children import ROOT
from tests.dahl.starpu_kernels import AFFINE, TOTAL

LINK = starpu.Link(bandwidth_bytes_per_s=10e9, latency_s=1e-6)


@dataclass(frozen=True)
class SmallNode:
    """The classes of its cores in the order of worker ids, of its GPUs, and (idle, busy) watts by class."""

    cores: tuple[str, ...]
    watts: Mapping[str, tuple[float, float]]
    gpus: tuple[str, ...] = ()
    base_w: float = 10.0

    def platform(self) -> starpu.Platform:
        """The machine; each GPU takes a core to drive it."""
        gpus = tuple(starpu.Gpu(worker_class=name, memory_bytes=1 << 34, link=LINK) for name in self.gpus)
        return starpu.Platform(name="small", cpu_classes=(*self.cores, *("driver" for _ in gpus)), gpus=gpus)

    def machine_watts(self, workers: Sequence[starpu.Worker]) -> starpu.MachineWatts:
        """The watts of its workers."""
        own = tuple(starpu.WorkerWatts(*self.watts[worker.worker_class]) for worker in workers)
        return starpu.MachineWatts(self.base_w, own)


@dataclass(frozen=True)
class Work:
    """Kinds: (milliseconds, millijoules) by worker class. Tasks: a kind, and the places of those that come before."""

    kinds: Mapping[str, Mapping[str, tuple[float, float]]]
    tasks: Sequence[tuple[str, tuple[int, ...]]]
    rounds: int = 1
    """How often the graph is submitted, each after the last has ended and after a plan of its own."""


@dataclass(frozen=True)
class Schedule:
    """Of each task, by its place: the worker, as ``gpu0`` or ``core1``, and start and end in ms."""

    workers: list[str]
    start_ms: list[float] = field(default_factory=list)
    end_ms: list[float] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The worker class of each task: which of several idle workers of a class is asked first is StarPU's affair."""
        return [worker.rstrip("0123456789") for worker in self.workers]


def names_of(workers: Sequence[starpu.Worker]) -> list[str]:
    """``core0, core1, gpu0``: the class, and the number in it."""
    classes = [worker.worker_class for worker in workers]
    return [f"{name}{classes[:i].count(name)}" for i, name in enumerate(classes)]


def run_graph(runtime: starpu.Runtime, work: Work) -> dict[str, Any]:
    """Plan, submit and wait; return the last round's schedule."""
    names = names_of(runtime.workers)
    codelets = {}
    for kind in work.kinds:
        for kernel in (AFFINE, TOTAL):
            codelets[kind, kernel.name] = runtime.codelet(
                f"{kind}_{kernel.name}", kernel, arches=("cpu", "cuda"), model="costs"
            )
    costs = {}
    for kind, by_class in work.kinds.items():
        mine = [by_class[worker.worker_class] for worker in runtime.workers]
        costs[kind] = starpu.Costs([ms * 1e-3 for ms, _ in mine], [mj * 1e-3 for _, mj in mine])
    handles = [runtime.register(np.zeros(1, np.float32)) for _ in work.tasks]
    graph = runtime.graph()
    for place, (kind, before) in enumerate(work.tasks):
        kernel, args = AFFINE, AFFINE.pack([(1,)], {"factor": 1.0, "shift": 0.0})
        if before:
            kernel, args = TOTAL, TOTAL.pack([(1,), (1,)], {})
        used = [handles[place], *(handles[i] for i in before)]
        graph.add(codelets[kind, kernel.name], used, args, costs=costs[kind], tag=place)
    for _ in range(work.rounds):
        runtime.wait_all()
        runtime.take_trace()
        runtime.plan([(graph, 1)])
        begin_s = runtime.now_s()
        graph.submit()
        runtime.wait_all()
        trace = runtime.take_trace()
    trace = trace[np.argsort(trace["tag"])]
    return {
        "workers": [names[w] for w in trace["worker"]],
        "start_ms": ((trace["start_s"] - begin_s) * 1e3).tolist(),
        "end_ms": ((trace["end_s"] - begin_s) * 1e3).tolist(),
    }


def schedule(
    policy: PlacementPolicy | PullPolicy | str,
    node: SmallNode,
    work: Work,
    home: Path,
    *,
    compiled: bool = True,
) -> Schedule:
    """Simulate and return where and when each task ran."""
    given = base64.b64encode(pickle.dumps((policy, node, work, str(home), compiled))).decode()
    command = [sys.executable, "-m", "tests.schedulers.simulated_graph", given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return Schedule(**json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    """Run what ``schedule`` has packed."""
    policy, node, work, home, compiled = pickle.loads(base64.b64decode(sys.argv[1]))
    scheduler = policy
    if not isinstance(policy, str):
        scheduler = CompiledPolicy(policy) if compiled else InterpretedPolicy(policy)
    runtime = starpu.Runtime(
        platform=node.platform(), scheduler=scheduler, watts=node.machine_watts, home=Path(home)
    )
    print(json.dumps(runtime.run(run_graph, work)))


if __name__ == "__main__":
    main()
