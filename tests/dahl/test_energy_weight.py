"""StarPU's own policies weigh the joules that each task comes with."""

from __future__ import annotations

import json

import pytest

from dahl import starpu
from tests.dahl.children import child_json, run_child

# Ten dependent tasks: on the core 2 ms and 3 mJ each, on the card 1 ms and 100 mJ.
CHAIN = """
import json
import numpy as np
from dahl import starpu
from tests.dahl.starpu_kernels import AFFINE

LINK = starpu.Link(bandwidth_bytes_per_s=1e12, latency_s=0.0)
NODE = starpu.Platform(name="two", cpu_classes=("core", "driver"),
                       gpus=(starpu.Gpu(worker_class="card", memory_bytes=1 << 30, link=LINK),))

def main(runtime):
    work = runtime.codelet("work", AFFINE, arches=("cpu", "cuda"), model="costs")
    handle = runtime.register(np.zeros(4, np.float32))
    known = {"core": (2e-3, 3e-3), "card": (1e-3, ENERGY_J)}
    own = [known[worker.worker_class] for worker in runtime.workers]
    costs = starpu.Costs([length for length, _ in own], [joules for _, joules in own])
    for _ in range(10):
        runtime.submit(work, [handle], AFFINE.pack([(4,)], {"factor": 1, "shift": 1}), costs=costs)
    runtime.wait_all()
    ran = [runtime.workers[w].worker_class for w in runtime.take_trace()["worker"]]
    print(json.dumps([sorted(set(ran)), runtime.energy_used_j()]))

starpu.Runtime(platform=NODE, scheduler=SCHEDULER, energy_weight=WEIGHT).run(main)
"""


def chain(scheduler: str, weight: str, energy_j: str = "100e-3") -> str:
    named = CHAIN.replace("SCHEDULER", repr(scheduler)).replace("ENERGY_J", energy_j)
    return named.replace("WEIGHT", weight)


@pytest.mark.parametrize("scheduler", ["dmda", "dmdas", "modular-dmda"])
def test_gamma_moves_tasks_to_the_thrifty_worker(scheduler: str) -> None:
    # At 1000 us per joule the card's 100 mJ are worth 0.1 ms; at 100,000 they are worth 10 ms.
    classes, joules = child_json(chain(scheduler, "None"))
    assert (classes, joules) == (["card"], pytest.approx(10 * 100e-3, rel=1e-6))
    classes, joules = child_json(chain(scheduler, "starpu.EnergyWeight(1e5)"))
    assert (classes, joules) == (["core"], pytest.approx(10 * 3e-3, rel=1e-6))


def test_a_policy_that_weighs_joules_refuses_a_task_whose_joules_are_not_known() -> None:
    done = run_child(chain("dmdas", "starpu.EnergyWeight(1e5)", "float('nan')"))
    assert "policy dmdas needs energy_j of work on CUDA 0" in done.stderr


def test_a_task_of_unknown_joules_names_the_command_that_measures_them() -> None:
    done = run_child("""
import numpy as np
from dahl import starpu
from tests.dahl.starpu_kernels import AFFINE
with starpu.Runtime(scheduler="dmdas", cpu_workers=1, energy_weight=starpu.EnergyWeight(1e5)) as runtime:
    work = runtime.codelet("work", AFFINE, model="costs")
    handle = runtime.register(np.zeros(4, np.float32))
    costs = starpu.Costs([1e-3], [float("nan")])
    runtime.submit(work, [handle], AFFINE.pack([(4,)], {"factor": 1, "shift": 1}), costs=costs)
""")
    assert "which is unknown: `python -m experiments.calibrate` measures it" in done.stderr


def test_what_a_runtime_weighs_is_gone_with_it() -> None:
    told = run_child("""
import json, os
from dahl import starpu
names = ("STARPU_SCHED_GAMMA", "STARPU_IDLE_POWER")
with starpu.Runtime(scheduler="dmdas", cpu_workers=1, energy_weight=starpu.EnergyWeight(5.0, 40.0)):
    during = [os.environ[name] for name in names]
print(json.dumps([during, [name in os.environ for name in names]]))
""")
    assert json.loads(told.stdout) == [["5.0", "40.0"], [False, False]]


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_cannot_be_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"gamma_us_per_j must be 0 or more"):
        starpu.EnergyWeight(bad)
    with pytest.raises(ValueError, match=r"idle_w must be 0 or more"):
        starpu.EnergyWeight(1.0, bad)
