"""What a policy needs and is unknown stops a run before its first task, and the error says what measures it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pytest

from dahl import starpu
from dahl.context import Context
from dahl.costs import CostModel, MeasuredCosts
from dahl.models import basic_cnn
from dahl.training import Hyperparameters, Trainer
from schedulers import CompiledPolicy, InterpretedPolicy, PlacementPolicy, PullPolicy
from tests.dahl.children import run_child
from tests.dahl.trainers import COSTS, machine_watts, synthetic
from tests.schedulers.policies import Always
from tests.schedulers.test_policies_train import POLICIES, named

MEASURED_BY = r"which is unknown: `python -m experiments.calibrate` measures it"
BOTH = pytest.mark.parametrize("wrap", [CompiledPolicy, InterpretedPolicy])
EVERY = pytest.mark.parametrize("policy", POLICIES, ids=named)


def of(need: str) -> list[PlacementPolicy | PullPolicy]:
    return [policy for policy in POLICIES if need in policy.NEEDS]


def train(
    policy: PlacementPolicy | PullPolicy,
    wrap: Callable[..., Any],
    costs: CostModel | None,
    watts: starpu.WattsOf | None,
    task_watts: starpu.MachineWatts | None,
) -> int:
    """Train an epoch on one worker and return how many tasks ran; the policy sees these costs and watts."""
    with starpu.Runtime(cpu_workers=1, scheduler=wrap(policy), watts=watts) as runtime:
        trainer = Trainer(
            Context(runtime, costs, task_watts),
            basic_cnn(),
            synthetic(train_size=12, test_size=4),
            Hyperparameters(batch_size=8, tile=8),
        )
        trainer.run_epoch(1)
        return len(runtime.take_trace())


def watts_of(base_w: float, idle_w: float, busy_w: float) -> starpu.WattsOf:
    return lambda workers: starpu.MachineWatts(
        base_w, tuple(starpu.WorkerWatts(idle_w, busy_w) for _ in workers)
    )


KNOWN_W = starpu.MachineWatts(10.0, (starpu.WorkerWatts(1.0, 8.0),))


@BOTH
@pytest.mark.parametrize("policy", of("length_s"), ids=named)
def test_lengths_that_nobody_measured_stop_the_run(
    policy: PlacementPolicy | PullPolicy, wrap: Callable[..., Any]
) -> None:
    message = rf"^policy {named(policy)} needs length_s of \w+ on CPU 0, {MEASURED_BY}$"
    with pytest.raises(starpu.CostUnknownError, match=message):
        train(policy, wrap, MeasuredCosts(), machine_watts, KNOWN_W)


@BOTH
@pytest.mark.parametrize("policy", of("energy_j"), ids=named)
def test_joules_that_nobody_measured_stop_the_run(
    policy: PlacementPolicy | PullPolicy, wrap: Callable[..., Any]
) -> None:
    message = rf"^policy {named(policy)} needs energy_j of \w+ on CPU 0, {MEASURED_BY}$"
    with pytest.raises(starpu.CostUnknownError, match=message):
        train(policy, wrap, COSTS, machine_watts, None)


@BOTH
@pytest.mark.parametrize("policy", [*of("idle_w"), *of("busy_w")], ids=named)
def test_watts_that_nobody_gave_stop_the_run(
    policy: PlacementPolicy | PullPolicy, wrap: Callable[..., Any]
) -> None:
    what = "base_w of the machine" if "idle_w" in policy.NEEDS else "busy_w of CPU 0"
    message = rf"^policy {named(policy)} needs {what}, {MEASURED_BY}, Runtime\(watts=\.\.\.\) takes it$"
    with pytest.raises(starpu.CostUnknownError, match=message):
        train(policy, wrap, COSTS, None, KNOWN_W)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (watts_of(math.nan, 1.0, 8.0), "base_w of the machine"),
        (watts_of(10.0, math.nan, 8.0), "idle_w of CPU 0"),
        (watts_of(10.0, 1.0, math.nan), "busy_w of CPU 0"),
    ],
)
def test_the_error_names_the_watts_that_are_missing(given: starpu.WattsOf, what: str) -> None:
    (erase,) = (policy for policy in POLICIES if named(policy) == "Erase")
    with pytest.raises(starpu.CostUnknownError, match=rf"^policy Erase needs {what}, "):
        train(erase, CompiledPolicy, COSTS, given, KNOWN_W)


@EVERY
def test_what_it_does_not_need_may_be_unknown(policy: PlacementPolicy | PullPolicy) -> None:
    """Every task of the epoch runs, once."""
    idle_w = 1.0 if "idle_w" in policy.NEEDS else math.nan
    base_w = 10.0 if "idle_w" in policy.NEEDS else math.nan
    busy_w = 8.0 if "busy_w" in policy.NEEDS else math.nan
    ran = train(
        policy,
        CompiledPolicy,
        COSTS if "length_s" in policy.NEEDS else None,
        watts_of(base_w, idle_w, busy_w),
        KNOWN_W if "energy_j" in policy.NEEDS else None,
    )
    assert ran == train(Always(), CompiledPolicy, COSTS, machine_watts, KNOWN_W)


def test_after_a_refusal_another_run_can_start() -> None:
    with pytest.raises(starpu.CostUnknownError):
        train(POLICIES[0], CompiledPolicy, COSTS, None, KNOWN_W)
    assert train(POLICIES[0], CompiledPolicy, COSTS, machine_watts, KNOWN_W) > 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Misspelt(PullPolicy):
    """Takes the first row; what it needs has a typing error."""

    NEEDS: ClassVar[tuple[str, ...]] = ("energy_j", "lenght_s")

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        return 0


def test_a_need_that_nobody_knows_is_an_error() -> None:
    message = "^policy Misspelt needs lenght_s; it may need length_s, energy_j, idle_w, busy_w$"
    with pytest.raises(ValueError, match=message):
        train(Misspelt(), InterpretedPolicy, COSTS, machine_watts, KNOWN_W)


SIMULATED = """
import numpy as np
from dahl import starpu
from schedulers import CompiledPolicy, EagerEnergy, Edp, InterpretedPolicy
from tests.dahl.run_one_scheduler import NODE, watts_of
from tests.dahl.starpu_kernels import AFFINE

def main(runtime):
    affine = runtime.codelet("affine", AFFINE, model="costs")
    costs = starpu.Costs([1e-3] * len(runtime.workers), [float("nan")] * len(runtime.workers))
    handle = runtime.register(np.ones(4, np.float32))
    runtime.submit(affine, [handle], AFFINE.pack([(4,)], {"factor": 1, "shift": 0}), costs=costs)

try:
    starpu.Runtime(platform=NODE, scheduler=SCHEDULER, watts=WATTS).run(main)
except starpu.CostUnknownError as error:
    print(error)
"""


@pytest.mark.parametrize("scheduler", ["CompiledPolicy(EagerEnergy())", "InterpretedPolicy(Edp())"])
@pytest.mark.parametrize(
    ("watts", "what"), [("None", "base_w of the machine"), ("watts_of", r"energy_j of affine on CPU \d+")]
)
def test_it_is_so_in_a_simulation(scheduler: str, watts: str, what: str) -> None:
    done = run_child(SIMULATED.replace("SCHEDULER", scheduler).replace("WATTS", watts))
    assert re.match(rf"policy \w+ needs {what}, {MEASURED_BY}", done.stdout), done.stderr
    assert done.stdout.count("\n") == 1
