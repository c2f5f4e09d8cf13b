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
from schedulers import CompiledPolicy, PlacementPolicy, PullPolicy
from tests.dahl.children import ROOT
from tests.dahl.starpu_kernels import AFFINE, TOTAL

LINK = starpu.Link(bandwidth_bytes_per_s=10e9, latency_s=1e-6)
FLOAT_BYTES = 4


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
    """

    costs: Mapping[str, tuple[float, float]]
    after: tuple[int, ...] = ()


@dataclass
class Outcome:
    """Where and when each task ran, by its place in the list; workers are named ``big0, big1, little0``."""

    placed: list[str]
    start_s: list[float]
    end_s: list[float]
    energy_j: float

    @property
    def milliseconds(self) -> list[tuple[float, float]]:
        """Start and end of each task, from the first start on."""
        first_s = min(self.start_s)
        return [
            (1e3 * (start_s - first_s), 1e3 * (end_s - first_s))
            for start_s, end_s in zip(self.start_s, self.end_s, strict=True)
        ]

    def running(self, t_s: float) -> list[str]:
        """The workers that run something at a moment."""
        spans = zip(self.placed, self.start_s, self.end_s, strict=True)
        return [name for name, start_s, end_s in spans if start_s <= t_s < end_s]


def names_of(workers: Sequence[starpu.Worker]) -> list[str]:
    """The class, and the number within it by worker id."""
    classes = [worker.worker_class for worker in workers]
    return [f"{name}{classes[:i].count(name)}" for i, name in enumerate(classes)]


def submit_jobs(runtime: starpu.Runtime, jobs: Sequence[Job], floats: int) -> None:
    """Submit each job as a task tagged with its place in the list."""
    arches = tuple(sorted({worker.arch for worker in runtime.workers}))
    first = runtime.codelet("first", AFFINE, arches=arches, model="costs")
    later = runtime.codelet("later", TOTAL, arches=arches, model="costs")
    handles = [runtime.register(np.zeros(floats, np.float32)) for _ in jobs]
    for tag, job in enumerate(jobs):
        length_s, energy_j = zip(*(job.costs[worker.worker_class] for worker in runtime.workers), strict=True)
        costs = starpu.Costs(length_s, energy_j)
        if job.after:
            before = [handles[i] for i in job.after]
            args = TOTAL.pack([(floats,), (floats,)], {})
            runtime.submit(later, [handles[tag], *before], args, costs=costs, tag=tag)
        else:
            args = AFFINE.pack([(floats,)], {"factor": 1.0, "shift": 0.0})
            runtime.submit(first, [handles[tag]], args, costs=costs, tag=tag)


def run(
    policy: PlacementPolicy | PullPolicy | str,
    node: Node,
    jobs: Sequence[Job],
    floats: int,
    options: Mapping[str, Any],
) -> Outcome:
    """Run the jobs in this process."""

    def main(runtime: starpu.Runtime) -> Outcome:
        submit_jobs(runtime, jobs, floats)
        runtime.wait_all()
        names, trace = names_of(runtime.workers), runtime.take_trace()
        assert sorted(trace["tag"]) == list(range(len(jobs)))
        trace = trace[np.argsort(trace["tag"])]
        return Outcome(
            [names[w] for w in trace["worker"]],
            trace["start_s"].tolist(),
            trace["end_s"].tolist(),
            float(trace["predicted_j"].sum()),
        )

    scheduler: Any = policy if isinstance(policy, str) else CompiledPolicy(policy)
    with tempfile.TemporaryDirectory() as home:
        return starpu.Runtime(
            platform=node.platform, scheduler=scheduler, watts=node.watts_of, home=Path(home), **options
        ).run(main)


def simulate(
    policy: PlacementPolicy | PullPolicy | str,
    node: Node,
    jobs: Sequence[Job],
    *,
    floats: int = 1,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Outcome:
    """Run the jobs, with buffers of so many floats, on the simulated node; ``options`` go to the runtime."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.schedulers.schedules"],
        cwd=ROOT,
        env=os.environ | dict(environment or {}),
        input=pickle.dumps((policy, node, jobs, floats, options)),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    from tests.schedulers.schedules import run as run_here  # by the name that the pickled classes have

    print(json.dumps(vars(run_here(*pickle.load(sys.stdin.buffer)))))
