"""Run a small graph on a simulated node and tell where each task ran, for schedules worked out by hand.

A simulation needs a process of its own: ``simulate`` starts one that runs this module.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dahl import starpu
from schedulers import CompiledPolicy, InterpretedPolicy, PlacementPolicy, PullPolicy
from tests.dahl.children import ROOT
from tests.dahl.starpu_kernels import AFFINE, TOTAL

LINK = starpu.Link(bandwidth_bytes_per_s=10e9, latency_s=1e-6)


@dataclass(frozen=True)
class Node:
    """Worker classes of the cores and the GPUs (each takes one more core to drive it), and (idle, busy) watts."""

    name: str
    cores: tuple[str, ...]
    watts: Mapping[str, tuple[float, float]]
    gpus: tuple[str, ...] = ()
    base_w: float = 10.0

    @property
    def platform(self) -> starpu.Platform:
        """The machine as StarPU sees it."""
        gpus = tuple(starpu.Gpu(worker_class=name, memory_bytes=1 << 34, link=LINK) for name in self.gpus)
        return starpu.Platform(
            name=self.name, cpu_classes=(*self.cores, *("driver" for _ in gpus)), gpus=gpus
        )

    def watts_of(self, workers: Sequence[starpu.Worker]) -> starpu.MachineWatts:
        """Watts of these workers."""
        own = tuple(starpu.WorkerWatts(*self.watts[worker.worker_class]) for worker in workers)
        return starpu.MachineWatts(self.base_w, own)

    @property
    def idle_w(self) -> float:
        """Watts of the whole machine with nothing running."""
        return self.base_w + sum(self.watts[name][0] for name in (*self.cores, *self.gpus))


@dataclass(frozen=True)
class Job:
    """One task: (seconds, joules) by worker class, and the tasks before it by their place in the list.

    It writes a buffer of its own, which the tasks after it read; with none before it, it also reads that buffer.
    Jobs of equal costs are of one kind.
    """

    costs: Mapping[str, tuple[float, float]]
    after: tuple[int, ...] = ()


Kinds = Mapping[str, Mapping[str, tuple[float, float]]]


def jobs_of(kinds: Kinds, tasks: Sequence[tuple[str, tuple[int, ...]]]) -> list[Job]:
    """Jobs from kinds of (milliseconds, millijoules) by worker class, and tasks of a kind with those before them."""
    return [
        Job({name: (ms * 1e-3, mj * 1e-3) for name, (ms, mj) in kinds[kind].items()}, after)
        for kind, after in tasks
    ]


@dataclass
class Outcome:
    """Where and when each task ran, by its place in the list, from the submission on.

    Workers are named ``big0, big1, little0``. Joules are net of idle.
    """

    placed: list[str]
    start_s: list[float]
    end_s: list[float]
    energy_j: float

    @property
    def classes(self) -> list[str]:
        """The worker class of each task: which of several idle workers of a class is asked first is StarPU's affair."""
        return [worker.rstrip("0123456789") for worker in self.placed]

    @property
    def start_ms(self) -> list[float]:
        """When each task starts."""
        return [1e3 * start_s for start_s in self.start_s]

    @property
    def end_ms(self) -> list[float]:
        """When each task ends."""
        return [1e3 * end_s for end_s in self.end_s]

    @property
    def milliseconds(self) -> list[tuple[float, float]]:
        """Start and end of each task."""
        return list(zip(self.start_ms, self.end_ms, strict=True))

    def running(self, t_s: float) -> list[str]:
        """The workers that run something at a moment."""
        spans = zip(self.placed, self.start_s, self.end_s, strict=True)
        return [name for name, start_s, end_s in spans if start_s <= t_s < end_s]


def names_of(workers: Sequence[starpu.Worker]) -> list[str]:
    """The class, and the number within it by worker id."""
    classes = [worker.worker_class for worker in workers]
    return [f"{name}{classes[:i].count(name)}" for i, name in enumerate(classes)]


def graph_of(runtime: starpu.Runtime, jobs: Sequence[Job], floats: int) -> starpu.TaskGraph:
    """Record each job as a task tagged with its place in the list."""
    arches = tuple(sorted({worker.arch for worker in runtime.workers}))
    kinds: list[Mapping[str, tuple[float, float]]] = []
    codelets: dict[tuple[int, str], starpu.Codelet] = {}
    costs: list[starpu.Costs] = []
    handles = [runtime.register(np.zeros(floats, np.float32)) for _ in jobs]
    graph = runtime.graph()
    for tag, job in enumerate(jobs):
        if job.costs not in kinds:
            kinds.append(job.costs)
            own = [job.costs[worker.worker_class] for worker in runtime.workers]
            costs.append(starpu.Costs(*zip(*own, strict=True)))
        kind = kinds.index(job.costs)
        kernel, args = AFFINE, AFFINE.pack([(floats,)], {"factor": 1.0, "shift": 0.0})
        if job.after:
            kernel, args = TOTAL, TOTAL.pack([(floats,), (floats,)], {})
        if (kind, kernel.name) not in codelets:
            name = f"{kernel.name}_{kind}"
            codelets[kind, kernel.name] = runtime.codelet(name, kernel, arches=arches, model="costs")
        used = [handles[tag], *(handles[i] for i in job.after)]
        graph.add(codelets[kind, kernel.name], used, args, costs=costs[kind], tag=tag)
    return graph


def run_rounds(runtime: starpu.Runtime, jobs: Sequence[Job], floats: int, rounds: int) -> Outcome:
    """Submit the graph so many times, each after the last has ended and a plan of its own; tell of the last."""
    graph, names = graph_of(runtime, jobs, floats), names_of(runtime.workers)
    for _ in range(rounds):
        runtime.plan([(graph, 1)])
        begin_s = runtime.now_s()
        graph.submit()
        runtime.wait_all()
        trace = runtime.take_trace()
    assert sorted(trace["tag"]) == list(range(len(jobs)))
    trace = trace[np.argsort(trace["tag"])]
    return Outcome(
        [names[w] for w in trace["worker"]],
        (trace["start_s"] - begin_s).tolist(),
        (trace["end_s"] - begin_s).tolist(),
        float(trace["predicted_j"].sum()),
    )


@dataclass(frozen=True)
class Simulation:
    """What ``simulate`` is asked for."""

    policy: PlacementPolicy | PullPolicy | str
    node: Node
    jobs: Sequence[Job]
    floats: int
    rounds: int
    compiled: bool
    options: Mapping[str, Any]

    def run(self) -> Outcome:
        """Run the jobs in this process."""
        scheduler: Any = self.policy
        if not isinstance(self.policy, str):
            scheduler = CompiledPolicy(self.policy) if self.compiled else InterpretedPolicy(self.policy)
        with tempfile.TemporaryDirectory() as home:
            return starpu.Runtime(
                platform=self.node.platform,
                scheduler=scheduler,
                watts=self.node.watts_of,
                home=Path(home),
                **self.options,
            ).run(run_rounds, self.jobs, self.floats, self.rounds)


def simulate(
    policy: PlacementPolicy | PullPolicy | str,
    node: Node,
    jobs: Sequence[Job],
    *,
    floats: int = 1,
    rounds: int = 1,
    compiled: bool = True,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Outcome:
    """Run the jobs, with buffers of so many floats, on the simulated node; ``options`` go to the runtime."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.schedulers.schedules"],
        cwd=ROOT,
        env=os.environ | dict(environment or {}),
        input=pickle.dumps(Simulation(policy, node, jobs, floats, rounds, compiled, options)),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    print(json.dumps(vars(pickle.load(sys.stdin.buffer).run())))
