"""One simulated epoch of a small network, for tests: ``python -m tests.experiments.simulated_epoch JOB``.

JOB is JSON: ``platform``, ``scheduler`` (one of StarPU's, or a policy's class), ``changes`` to the platform's fields,
``seed`` of the noise, ``how`` a policy runs (``InterpretedPolicy``), ``idle_w`` for StarPU's own account. Prints JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import schedulers
from dahl import starpu
from dahl.context import Context
from dahl.datasets import Synthetic
from dahl.models import lenet
from dahl.training import Hyperparameters, Trainer
from energy import activity_energy
from experiments.platform import SimulatedNode
from experiments.validation import CONFIGS
from experiments.workload import machine_watts

CHECKED = ("task", "codelet", "worker", "submit_s", "ready_s", "start_s", "end_s")


def versions() -> list[str]:
    """StarPU's and SimGrid's."""
    mapped = Path("/proc/self/maps").read_text().splitlines()
    libraries = {Path(line.split()[-1]).name for line in mapped if "libsimgrid" in line}
    return [starpu.version("simgrid"), *sorted(libraries)]


def node_of(job: dict[str, Any]) -> SimulatedNode:
    loaded = yaml.safe_load((Path(CONFIGS) / "platform" / f"{job['platform']}.yaml").read_text())
    fields = {key: value for key, value in loaded.items() if key not in ("_target_", "simulated")}
    return SimulatedNode(**fields | job.get("changes", {}))


def run(job: dict[str, Any]) -> dict[str, Any]:
    node = node_of(job)
    name = job.get("scheduler", "dmda")
    made = getattr(schedulers, job.get("how", "CompiledPolicy"))
    policy: Any = made(getattr(schedulers, name)()) if name[0].isupper() else name

    def inside(runtime: starpu.Runtime) -> dict[str, Any]:
        power = node.power_model(runtime.workers)
        context = Context(runtime, node.costs, machine_watts(power))
        dataset = Synthetic(height=16, width=16, train_size=640, test_size=64).load()
        small = lenet(filters=(4, 6), units=8)
        trainer = Trainer(context, small, dataset, Hyperparameters(batch_size=64, tile=16))
        runtime.take_transfers()
        begin_s, used_j = runtime.now_s(), runtime.energy_used_j()
        result = trainer.run_epoch(1)
        end_s, used_j = runtime.now_s(), runtime.energy_used_j() - used_j
        trace = runtime.take_trace()
        names = np.array(context.codelet_names())
        tasks = {key: trace[key] for key in ("worker", "start_s", "end_s")}
        counted = activity_energy(power, {**tasks, "codelet": names[trace["codelet"]]}, begin_s, end_s)
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(trace[key]).tobytes() for key in CHECKED))
        return {
            "seconds": repr(result.seconds),
            "tasks": len(trace),
            "starpu_j": used_j,
            "idle_w": sum(power.idle_w.values()),
            "counted_j": sum(energy.gross_j for energy in counted.values()),
            "factors": {
                int(task): factor
                for task, factor in zip(
                    trace["task"], (trace["end_s"] - trace["start_s"]) / trace["predicted_s"], strict=True
                )
            },
            "expected_s": sorted(trace["predicted_s"].tolist()),
            "moved_bytes": runtime.take_transfers().tolist(),
            "sha256": digest.hexdigest(),
            "versions": versions(),
        }

    runtime = starpu.Runtime(
        platform=node.platform,
        scheduler=policy,
        noise=node.length_noise(job.get("seed", 0)),
        watts=lambda workers: machine_watts(node.power_model(workers)),
        home=Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR"))),
        energy_weight=starpu.EnergyWeight(1000.0, job["idle_w"]) if "idle_w" in job else None,
    )
    return runtime.run(inside)


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
