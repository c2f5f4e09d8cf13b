"""Policies that plan and learn, in training and on a simulated node of 8 cores and 2 GPUs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from dahl.models import basic_cnn
from schedulers import CompiledPolicy, Erase, HeteroEnergy, LpQuota, Park, PullPolicy
from tests.dahl.trainers import ODD, WORKERS, synthetic, training
from tests.schedulers.simulated_graph import SmallNode, Work, schedule

POLICIES = [Erase(explore=2), HeteroEnergy(), LpQuota(), Park(max_slowdown=2.5)]
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)

NODE = SmallNode(("core",) * 8, {"core": (2, 10), "gpu": (4, 120)}, ("gpu", "gpu"), base_w=20.0)
FORK_JOIN = Work(
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
    rounds=2,
)


@cache
def trained_sha256(policy: PullPolicy | None, workers: int) -> str:
    """The weights of basic_cnn after two epochs; None is StarPU's eager."""
    scheduler = CompiledPolicy(policy) if policy else "eager"
    with training(
        synthetic(**ODD), basic_cnn(), scheduler=scheduler, workers=workers, batch_size=16, tile=3
    ) as (trainer, _):
        for epoch in (1, 2):
            trainer.run_epoch(epoch)
        return trainer.weights_sha256()


@each_policy
def test_it_trains_to_the_same_weights_as_eager(policy: PullPolicy) -> None:
    assert trained_sha256(policy, WORKERS) == trained_sha256(None, 1)


@each_policy
def test_compiled_and_interpreted_it_makes_the_same_schedule_on_8_cores_and_2_gpus(
    policy: PullPolicy, tmp_path: Path
) -> None:
    compiled, interpreted = (
        schedule(policy, NODE, FORK_JOIN, tmp_path / str(how), compiled=how) for how in (True, False)
    )
    assert compiled == interpreted
    assert len(set(compiled.workers)) > 1
    for task, (_, before) in enumerate(FORK_JOIN.tasks):
        assert all(compiled.end_ms[i] <= compiled.start_ms[task] for i in before)
