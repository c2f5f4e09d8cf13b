"""Run a small graph under one scheduler: ``python -m tests.dahl.run_one_scheduler NAME native|simgrid HOME``.

Prints one JSON object: the number of tasks in the trace, the result, the seconds and joules of a simulation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dahl import starpu
from schedulers import CompiledPolicy, EagerEnergy
from tests.dahl.starpu_kernels import ADD, AFFINE, TOTAL

NODE = starpu.Platform(
    name="cpu8_gpu2",
    cpu_classes=("core",) * 8,
    gpus=(
        starpu.Gpu(
            worker_class="gpu",
            memory_bytes=1 << 34,
            link=starpu.Link(bandwidth_bytes_per_s=12e9, latency_s=8e-6),
        ),
    )
    * 2,
)
WIDTH, ROUNDS = 6, 5


def costs_of(workers: tuple[starpu.Worker, ...], scale: float) -> starpu.Costs:
    """A GPU is 8 times as fast as a core and takes twice the joules of one for its tasks."""
    lengths = [scale * (1e-3 if worker.arch == "cpu" else 1.25e-4) for worker in workers]
    return starpu.Costs(
        lengths,
        [length * (8.0 if w.arch == "cpu" else 16.0) for length, w in zip(lengths, workers, strict=True)],
    )


def watts_of(workers: tuple[starpu.Worker, ...]) -> starpu.MachineWatts:
    """Watts that go with ``costs_of``."""
    own = tuple(
        starpu.WorkerWatts(2.0, 10.0) if w.arch == "cpu" else starpu.WorkerWatts(4.0, 20.0) for w in workers
    )
    return starpu.MachineWatts(20.0, own)


def fork_join(runtime: starpu.Runtime) -> dict[str, Any]:
    """Scale vectors in parallel, sum them up, feed the sum back; several rounds."""
    arches = ("cpu", "cuda") if runtime.simulated else ("cpu",)
    affine = runtime.codelet("affine", AFFINE, arches=arches, model="costs")
    add = runtime.codelet("add", ADD, arches=arches, model="costs")
    total = runtime.codelet("total", TOTAL, arches=arches, model="costs")
    parts = [runtime.register(np.full(1000, i + 1, np.float32)) for i in range(WIDTH)]
    out = runtime.register(np.zeros(1000, np.float32))
    big, small = costs_of(runtime.workers, 1.0), costs_of(runtime.workers, 0.2)
    graph = runtime.graph()
    for index, part in enumerate(parts):
        args = AFFINE.pack([(1000,)], {"factor": 0.5, "shift": index})
        graph.add(affine, [part], args, costs=big, priority=index)
    graph.add(total, [out, *parts], TOTAL.pack([(1000,), (1000,)], {}), costs=small)
    for part in parts:
        graph.add(add, [out, part], ADD.pack([(1000,), (1000,)], {}), costs=small)
    for _ in range(ROUNDS):
        graph.submit()
    runtime.wait_all()
    trace = runtime.take_trace()
    with out.acquire() as values:
        result = float(values[0])
    return {
        "tasks": len(trace),
        "result": result,
        "seconds": repr(runtime.now_s()),
        "joules": repr(runtime.energy_used_j()),
        "workers": sorted(set(trace["worker"].tolist())),
        "archs": sorted({runtime.workers[w].arch for w in set(trace["worker"].tolist())}),
    }


def main() -> None:
    """Run it as asked."""
    name, variant, home = sys.argv[1:4]
    scheduler: Any = CompiledPolicy(EagerEnergy()) if name == "eager_energy" else name
    if variant == "simgrid":
        runtime = starpu.Runtime(platform=NODE, scheduler=scheduler, watts=watts_of, home=Path(home))
    else:
        runtime = starpu.Runtime(scheduler=scheduler, watts=watts_of, home=Path(home))
    print(json.dumps(runtime.run(fork_join)))


if __name__ == "__main__":
    main()
