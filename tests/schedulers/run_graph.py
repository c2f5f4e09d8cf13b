"""Run the tasks of a file in a simulation under a policy: ``python -m tests.schedulers.run_graph FILE HOME CLASS``.

The counterpart of graph_program.c. Prints one JSON list: the worker of each task.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np

from dahl import starpu
from schedulers import CompiledPolicy
from tests.dahl.starpu_kernels import ADD

LINK = starpu.Link(bandwidth_bytes_per_s=12e9, latency_s=8e-6)
NODE = starpu.Platform(
    name="cpu3_gpu1",
    cpu_classes=("cpu",) * 4,
    gpus=(starpu.Gpu(worker_class="cuda", memory_bytes=1 << 34, link=LINK),),
)
BASE_W, CPU_W, GPU_W = 20.0, (2.0, 10.0), (5.0, 45.0)
"""Watts of the rest of the machine; idle and busy watts of a core and of the GPU."""
VECTORS, LENGTH = 16, 1000


def watts_of(workers: tuple[starpu.Worker, ...]) -> starpu.MachineWatts:
    """The watts above, for these workers."""
    return starpu.MachineWatts(
        BASE_W, tuple(starpu.WorkerWatts(*(CPU_W if w.arch == "cpu" else GPU_W)) for w in workers)
    )


def run(runtime: starpu.Runtime, path: Path) -> list[int]:
    """Submit the tasks in their order, wait, and return each one's worker."""
    add = runtime.codelet("work", ADD, arches=("cpu", "cuda"), model="costs")
    handles = [runtime.register(np.zeros(LENGTH, np.float32)) for _ in range(VECTORS)]
    kinds: dict[tuple[str, str], starpu.Costs] = {}
    for tag, line in enumerate(path.read_text().splitlines()):
        cpu_us, gpu_us, priority, x, y = line.split()
        lengths = [float(cpu_us if w.arch == "cpu" else gpu_us) * 1e-6 for w in runtime.workers]
        net_w = [
            (busy - idle) for idle, busy in (CPU_W if w.arch == "cpu" else GPU_W for w in runtime.workers)
        ]
        costs = kinds.setdefault(
            (cpu_us, gpu_us),
            starpu.Costs(lengths, [length * watts for length, watts in zip(lengths, net_w, strict=True)]),
        )
        args = ADD.pack([(LENGTH,), (LENGTH,)], {})
        runtime.submit(
            add, [handles[int(x)], handles[int(y)]], args, costs=costs, priority=int(priority), tag=tag
        )
    runtime.wait_all()
    trace = runtime.take_trace()
    return [int(worker) for worker in trace["worker"][np.argsort(trace["tag"])]]


def main() -> None:
    """Run it as asked."""
    path, home, name = sys.argv[1:]
    module, _, attribute = name.rpartition(".")
    policy = getattr(importlib.import_module(module), attribute)()
    runtime = starpu.Runtime(platform=NODE, scheduler=CompiledPolicy(policy), watts=watts_of, home=Path(home))
    print(json.dumps(runtime.run(run, Path(path))))


if __name__ == "__main__":
    main()
