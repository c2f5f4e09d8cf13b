"""The watts that a policy sees of a simulated machine while it runs."""

from __future__ import annotations

import math

import pytest

from tests.dahl.children import child_json

# Worker 0 runs tasks of 1 ms one after another, worker 1 one of 10 ms, of a kind that draws watts of its own.
LOOK = """
import json
from dataclasses import dataclass
import numpy as np
from dahl import starpu
from schedulers import InterpretedPolicy, PlacementPolicy
from tests.dahl.starpu_kernels import AFFINE

SEEN = []

@dataclass(frozen=True, slots=True, kw_only=True)
class Look(PlacementPolicy):
    def place(self, task, workers, system, memory):
        SEEN.append((float(system.now_s), float(system.measured_w), float(system.measured_age_s)))
        return 1 if workers[0].length_s > 5e-3 else 0

def watts_of(workers):
    return starpu.MachineWatts(30.0, tuple(starpu.WorkerWatts(2.0, 12.0) for _ in workers))

def main(runtime):
    work = runtime.codelet("work", AFFINE, arches=("cpu",), model="costs")
    short, long = (starpu.Costs([s] * 2, [s * net_w] * 2) for s, net_w in ((1e-3, 10.0), (1e-2, 7.0)))
    one, other = (runtime.register(np.zeros(4, np.float32)) for _ in range(2))
    args = AFFINE.pack([(4,)], {"factor": 1, "shift": 1})
    runtime.submit(work, [other], args, costs=long)
    for _ in range(3):
        runtime.submit(work, [one], args, costs=short)
    runtime.wait_all()
    print(json.dumps(SEEN))

NODE = starpu.Platform(name="two", cpu_classes=("core", "core"))
starpu.Runtime(platform=NODE, scheduler=InterpretedPolicy(Look()), watts=watts_of).run(main)
"""


def test_live_watts_of_a_simulation_are_the_mean_of_the_last_millisecond() -> None:
    seen = child_json(LOOK)
    assert len(seen) == 4
    for now_s, watts, age_s in seen:
        if now_s < 1e-3:
            assert math.isnan(watts), "the meter has not been read yet"
        else:
            assert watts == pytest.approx(30 + 2 * 2 + 10.0 + 7.0, rel=0.02)
            assert 0 <= age_s < 1e-3
    assert sum(now_s >= 1e-3 for now_s, _, _ in seen) == 2
