"""Every policy of this project keeps the contract, with the parameters of its configuration."""

from __future__ import annotations

import math
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
    "EagerEnergy": [{"wait_weight": -1.0}, {"wait_weight": math.inf}],
    "Edp": [{"energy_exponent": -1.0}, {"delay_exponent": -0.5}],
    "EnergyGreedy": [{"max_slowdown": 0.99}, {"transfer_w": -1.0}],
    "Erase": [{"explore": 0}, {"steal_ratio": 0.5}],
    "GammaMct": [{"alpha": -1.0}, {"beta": -1.0}, {"gamma_s_per_j": -1.0}],
    "HeteroEnergy": [{"end_slack": -1.0}, {"max_ratio": 0.5}],
    "LpQuota": [{"max_slowdown": 0.5}],
    "Park": [{"max_slowdown": 0.5}, {"probe_share": 1.1}, {"probe_share": -0.1}],
    "PlanAhead": [{"max_slowdown": 0.5}, {"effort": -1}],
    "PowerCap": [
        {"cap_w": -1.0},
        {"cap_share": -0.1},
        {"cap_share": 1.1},
        {"gain": -0.1},
        {"gain": 2.5},
        {"max_age_s": -1.0},
    ],
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
