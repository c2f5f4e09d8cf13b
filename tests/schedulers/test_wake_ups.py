"""No wake-up is lost: many tasks of random length, and workers that fall asleep between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dahl import starpu
from schedulers import CompiledPolicy
from tests.schedulers.run_many_tasks import POLICIES, watts

ROOT = Path(__file__).parents[2]
two_workers = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
kinds = pytest.mark.parametrize("kind", sorted(POLICIES))


def run_many(kind: str, tasks: int, limit_s: float) -> dict[str, Any]:
    """Run them in a process of its own, whose peak memory is then theirs."""
    command = [sys.executable, "-m", "tests.schedulers.run_many_tasks", kind, str(tasks)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@two_workers
@kinds
def test_30_000_tasks_of_random_length_all_run(kind: str) -> None:
    found = run_many(kind, 30_000, 120)
    assert found["ran"] == 30_000
    assert found["peak_mib"] < 1000
    # A worker that nobody wakes looks again after 10 ms, so that bursts of some 0.2 ms would take 5 ms on average.
    assert found["after_pause_s"] < 0.003


@pytest.mark.slow
@two_workers
@kinds
def test_1_000_000_tasks_of_random_length_all_run_in_less_than_1_gb(kind: str) -> None:
    found = run_many(kind, 1_000_000, 280)
    print(f"{kind}: {found}")
    assert found["ran"] == 1_000_000
    assert found["peak_mib"] < 1e9 / 2**20
    assert found["after_pause_s"] < 0.003


@pytest.mark.parametrize("scheduler", ["eager", "lws", "dmda", *sorted(POLICIES)])
def test_an_idle_worker_sleeps_whatever_the_scheduler(scheduler: str) -> None:
    chosen = CompiledPolicy(POLICIES[scheduler]) if scheduler in POLICIES else scheduler
    with starpu.Runtime(cpu_workers=1, scheduler=chosen, watts=watts) as runtime:
        empty = runtime.codelet("empty", model="costs")
        runtime.submit(empty, costs=starpu.Costs([1e-6], [1e-6]))
        runtime.wait_all()
        time.sleep(0.05)
        before_s = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before_s < 0.25, "a worker that spins takes 0.5 s"
