"""Every scheduling policy that StarPU registers, natively and simulated, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from dahl import starpu
from tests.dahl.children import ROOT
from tests.dahl.run_one_scheduler import ROUNDS, WIDTH

SCHEDULERS = sorted(starpu.schedulers())


def expected_result() -> float:
    """The same arithmetic, one operation after the other, in float32."""
    parts, out = [np.float32(i + 1) for i in range(WIDTH)], np.float32(0)
    for _ in range(ROUNDS):
        parts = [np.float32(part * np.float32(0.5) + np.float32(i)) for i, part in enumerate(parts)]
        for index, part in enumerate(parts):
            out = part if index == 0 else np.float32(out * np.float32(2) + part)
        parts = [np.float32(part + out) for part in parts]
    return float(out)


def run_scheduler(name: str, variant: str, home: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.dahl.run_one_scheduler", name, variant, str(home)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-3000:]}"
    outcome: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return outcome


def test_starpu_registers_the_38_policies_of_version_1_4() -> None:
    assert len(SCHEDULERS) == 38
    assert {"eager", "lws", "prio", "random", "ws", "dm", "dmda", "dmdas", "heteroprio"} <= set(SCHEDULERS)


@pytest.mark.parametrize("variant", ["native", "simgrid"])
@pytest.mark.parametrize("name", [*SCHEDULERS, "eager_energy"])
def test_every_scheduler_runs_the_graph_to_its_end(name: str, variant: str, tmp_path: Any) -> None:
    outcome = run_scheduler(name, variant, tmp_path)
    assert outcome["tasks"] == ROUNDS * (2 * WIDTH + 1)
    if variant == "native":
        assert outcome["result"] == expected_result()
    else:
        assert float(outcome["seconds"]) > 0


@pytest.mark.parametrize("name", ["eager", "dmdas", "eager_energy"])
def test_a_simulation_gives_the_same_digits_twice(name: str, tmp_path: Any) -> None:
    first, second = (run_scheduler(name, "simgrid", tmp_path / str(i)) for i in range(2))
    assert first == second
