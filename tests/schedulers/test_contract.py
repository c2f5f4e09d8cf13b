"""Every policy of this project keeps the contract, with the parameters of its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from omegaconf import OmegaConf

import schedulers
from experiments.policies import load_scheduler
from experiments.validation import CONFIGS, options
from schedulers import PlacementPolicy, PullPolicy
from schedulers.testing import PolicyContract

BAD_PARAMETERS: dict[str, Sequence[Mapping[str, Any]]] = {
    "EagerEnergy": [{"wait_weight": -1.0}],
}
"""What each policy must refuse, beside NaN."""

POLICIES = sorted(
    name
    for name in schedulers.__all__
    if issubclass(getattr(schedulers, name), PlacementPolicy | PullPolicy)
    and name not in ("PlacementPolicy", "PullPolicy")
)


def configured() -> dict[str, PlacementPolicy | PullPolicy]:
    """The policy of each file of the group that names one, by its class."""
    names = [name for name in options("scheduler") if name not in ("own", "starpu")]
    made = [load_scheduler(OmegaConf.load(CONFIGS / "scheduler" / f"{name}.yaml")) for name in names]
    return {
        type(policy).__name__: policy for policy in made if isinstance(policy, PlacementPolicy | PullPolicy)
    }


def test_no_policy_is_left_out() -> None:
    assert set(configured()) == set(POLICIES)
    assert set(BAD_PARAMETERS) == set(POLICIES), "give a new policy its bad parameters"
    assert "EagerEnergy" in POLICIES


class TestEveryPolicy(PolicyContract):
    @pytest.fixture(autouse=True, params=POLICIES)
    def _policy(self, request: pytest.FixtureRequest) -> None:
        self.policy = configured()[request.param]
        self.bad_parameters = BAD_PARAMETERS.get(request.param, ())
