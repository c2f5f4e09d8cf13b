"""Every policy in training, and on a simulated node of 8 cores and 2 GPUs."""

from __future__ import annotations

from functools import cache

import pytest

from dahl.models import basic_cnn
from schedulers import (
    CompiledPolicy,
    EagerEnergy,
    Edp,
    EnergyGreedy,
    Erase,
    GammaMct,
    HeteroEnergy,
    LpQuota,
    Park,
    PlacementPolicy,
    PlanAhead,
    PowerCap,
    PullPolicy,
)
from tests.dahl.trainers import ODD, WORKERS, synthetic, training
from tests.schedulers.schedules import Node, Outcome, jobs_of, simulate
from tests.schedulers.test_contract import POLICIES as NAMES

POLICIES = [
    EagerEnergy(),
    Edp(),
    EnergyGreedy(),
    Erase(explore=2),
    GammaMct(),
    HeteroEnergy(),
    LpQuota(),
    Park(max_slowdown=2.5),
    PlanAhead(effort=20000),
    PowerCap(),
]
CAPPED = [PowerCap(cap_share=0.0), PowerCap(cap_w=30.0)]
"""One task at a time, and both workers, on the 12 W of an idle machine with two workers."""

NODE = Node("cpu8_gpu2", ("core",) * 8, {"core": (2, 10), "gpu": (4, 120)}, ("gpu", "gpu"), base_w=20.0)
FORK_JOIN = jobs_of(
    {
        "wide": {"core": (2, 16), "gpu": (0.5, 58)},
        "light": {"core": (1, 8), "gpu": (0.9, 104)},
        "join": {"core": (1, 8), "gpu": (0.4, 46)},
    },
    [
        *[("wide", ())] * 12,
        ("join", tuple(range(12))),
        *[("light", (12,))] * 12,
        ("join", tuple(range(13, 25))),
        *[("wide", (25,))] * 12,
    ],
)


def named(policy: PlacementPolicy | PullPolicy) -> str:
    return type(policy).__name__


def test_no_policy_is_left_out() -> None:
    assert sorted(named(policy) for policy in POLICIES) == NAMES


@cache
def trained_sha256(policy: PlacementPolicy | PullPolicy | None, workers: int) -> str:
    """The weights of basic_cnn after two epochs; None is StarPU's eager."""
    scheduler = CompiledPolicy(policy) if policy else "eager"
    with training(
        synthetic(**ODD), basic_cnn(), scheduler=scheduler, workers=workers, batch_size=16, tile=3
    ) as (trainer, _):
        for epoch in (1, 2):
            trainer.run_epoch(epoch)
        return trainer.weights_sha256()


@pytest.mark.parametrize("policy", [*POLICIES, *CAPPED], ids=named)
def test_it_trains_to_the_same_weights_as_eager(policy: PlacementPolicy | PullPolicy) -> None:
    assert trained_sha256(policy, WORKERS) == trained_sha256(None, 1)


@cache
def eager_on_the_node() -> Outcome:
    return simulate("eager", NODE, FORK_JOIN, rounds=2)


@pytest.mark.parametrize("policy", POLICIES, ids=named)
def test_compiled_and_interpreted_it_makes_the_same_schedule_on_8_cores_and_2_gpus_and_not_eagers(
    policy: PlacementPolicy | PullPolicy,
) -> None:
    compiled, interpreted = (
        simulate(policy, NODE, FORK_JOIN, rounds=2, compiled=how) for how in (True, False)
    )
    assert compiled == interpreted
    assert len(set(compiled.placed)) > 1
    assert compiled.classes != eager_on_the_node().classes
    for task, job in enumerate(FORK_JOIN):
        assert all(compiled.end_ms[i] <= compiled.start_ms[task] for i in job.after)
