"""Simulated epochs: joules beside StarPU's own account, noise, transfers, and the same digits every time."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.dahl.children import ROOT

EXPECTED = json.loads((Path(__file__).parent / "expected_traces.json").read_text())


@cache
def _simulated(job: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.experiments.simulated_epoch", job]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def simulated(**job: Any) -> dict[str, Any]:
    return _simulated(json.dumps(job))


@pytest.mark.parametrize(
    ("platform", "scheduler", "idle_w"),
    [
        ("cpu8_gpu2", "dmda", 70.0),
        ("weak_cores_hot_gpu", "eager", 76.2),
        ("two_gpu_classes", "EnergyGreedy", 97.0),
    ],
)
def test_joules_from_the_trace_alone_are_starpus_own(platform: str, scheduler: str, idle_w: float) -> None:
    """StarPU adds the expected joules of each task, net, and STARPU_IDLE_POWER times the time (core/simgrid.c)."""
    found = simulated(platform=platform, scheduler=scheduler, idle_w=idle_w)
    assert found["idle_w"] == pytest.approx(idle_w), "or StarPU is told another machine"
    assert found["counted_j"] == pytest.approx(found["starpu_j"], rel=1e-6)


def test_joules_agree_where_lengths_vary() -> None:
    found = simulated(platform="cpu8_gpu2", scheduler="eager", idle_w=70.0, changes={"noise": 0.3})
    assert found["counted_j"] == pytest.approx(found["starpu_j"], rel=1e-6)


def test_without_noise_a_task_takes_what_is_expected_of_it() -> None:
    factors = simulated(platform="weak_cores_hot_gpu", scheduler="eager", idle_w=76.2)["factors"]
    assert np.array([*factors.values()]) == pytest.approx(1.0, abs=1e-6)


def test_noise_is_lognormal_of_mean_1_and_the_policy_expects_lengths_without_it() -> None:
    sigma = 0.3
    quiet = simulated(platform="cpu8_gpu2", scheduler="eager", changes={"noise": 0.0})
    noisy = simulated(platform="cpu8_gpu2", scheduler="eager", idle_w=70.0, changes={"noise": sigma})
    logs = np.log([*noisy["factors"].values()])
    error = sigma / np.sqrt(logs.size)
    assert logs.mean() == pytest.approx(-(sigma**2) / 2, abs=4 * error)
    assert logs.std() == pytest.approx(sigma, abs=4 * error)
    assert set(noisy["expected_s"]) <= set(quiet["expected_s"])


def test_noise_depends_on_the_seed_and_the_task_and_on_nothing_else() -> None:
    eager = simulated(platform="cpu8_gpu2", scheduler="eager", idle_w=70.0, changes={"noise": 0.3})
    dmda = simulated(platform="cpu8_gpu2", scheduler="dmda", changes={"noise": 0.3})
    other = simulated(platform="cpu8_gpu2", scheduler="dmda", changes={"noise": 0.3}, seed=1)
    assert dmda["factors"] == pytest.approx(eager["factors"], rel=1e-6)
    assert dmda["seconds"] != other["seconds"]
    again = [dmda["factors"][task] == pytest.approx(factor) for task, factor in other["factors"].items()]
    assert not any(again)


def test_bytes_move_between_the_memories_that_exist() -> None:
    moved = np.array(simulated(platform="weak_cores_hot_gpu", scheduler="eager", idle_w=76.2)["moved_bytes"])
    assert moved.shape == (2, 2)
    assert moved[0, 1] > 0
    assert moved[1, 0] > 0
    assert moved[0, 0] == moved[1, 1] == 0


@pytest.mark.parametrize("platform", sorted(EXPECTED["sha256"]))
def test_a_simulation_has_the_digits_on_record(platform: str) -> None:
    """Every task's number, codelet, worker and times; a policy that is interpreted takes longer to answer."""
    compiled = simulated(platform=platform, scheduler="EnergyGreedy")
    if compiled["versions"] != EXPECTED["versions"]:
        pytest.skip(f"the record is of {EXPECTED['versions']}, this is {compiled['versions']}")
    interpreted = simulated(platform=platform, scheduler="EnergyGreedy", how="InterpretedPolicy")
    assert compiled["sha256"] == interpreted["sha256"]
    assert compiled["sha256"] == EXPECTED["sha256"][platform]
