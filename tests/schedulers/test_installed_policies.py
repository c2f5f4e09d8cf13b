"""Compiled policies inside a running StarPU."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pytest

from dahl import starpu
from schedulers import CompiledPolicy, EagerEnergy, PlacementPolicy, PolicyCompileError, PullPolicy
from tests.dahl.starpu_kernels import SPIN
from tests.schedulers.policies import Always, EarliestFinish, NeverTakes, RaisesAt, TakesRow, Uncompilable

WORKERS = min(2, len(os.sched_getaffinity(0)))
two_workers = pytest.mark.skipif(WORKERS < 2, reason="needs two cores")


def watts(workers: Sequence[starpu.Worker]) -> starpu.MachineWatts:
    return starpu.MachineWatts(10.0, tuple(starpu.WorkerWatts(1.0, 8.0) for _ in workers))


def run_tasks(
    policy: PlacementPolicy | PullPolicy,
    *,
    count: int = 40,
    workers: int = WORKERS,
    length_s: Sequence[float] = (1e-4, 1e-4),
    energy_j: Sequence[float] = (1e-3, 1e-3),
    loops: int = 20_000,
) -> np.ndarray:
    """Run independent tasks and return their trace."""
    with starpu.Runtime(cpu_workers=workers, scheduler=CompiledPolicy(policy), watts=watts) as runtime:
        spin = runtime.codelet("spin", SPIN, model="costs")
        costs = starpu.Costs(length_s[:workers], energy_j[:workers])
        handles = [runtime.register(np.ones(1, np.float32)) for _ in range(count)]
        for tag, handle in enumerate(handles):
            runtime.submit(spin, [handle], SPIN.pack([(1,)], {"loops": loops}), costs=costs, tag=tag)
        runtime.wait_all()
        return runtime.take_trace()


@two_workers
@pytest.mark.parametrize("worker", [0, 1])
def test_a_placement_policy_decides_where_each_task_runs(worker: int) -> None:
    assert set(run_tasks(Always(answer=worker))["worker"]) == {worker}


@two_workers
def test_a_placement_policy_sees_expected_lengths_and_queues() -> None:
    """Worker 1 is told to be 3 times slower, so of 40 tasks placed before the first one
    ends, earliest finish gives it 1 of each 4."""
    trace = run_tasks(EarliestFinish(), length_s=(1.0, 3.0), loops=5_000_000)
    counts = np.bincount(trace["worker"], minlength=2)
    assert 9 <= counts[1] <= 11
    assert set(trace["predicted_s"]) == {1.0, 3.0}


def test_eager_energy_runs_every_task_once() -> None:
    trace = run_tasks(EagerEnergy())
    assert sorted(trace["tag"]) == list(range(40))


def test_eager_energy_on_one_worker_takes_tasks_in_the_order_of_arrival() -> None:
    trace = run_tasks(EagerEnergy(), workers=1)
    assert list(trace["tag"]) == list(range(40))


@two_workers
def test_eager_energy_leaves_a_worker_idle_that_costs_more() -> None:
    """Worker 1 needs 50 mJ more for a task; waiting 0.1 ms for worker 0 costs 12 W * 0.1 ms = 1.2 mJ."""
    trace = run_tasks(EagerEnergy(), energy_j=(1e-3, 51e-3))
    assert set(trace["worker"]) == {0}


@two_workers
def test_eager_energy_uses_the_costlier_worker_when_waiting_costs_more() -> None:
    """Worker 1 needs 0.1 mJ more, and worker 0 is thought to be busy for a second: 12 J of waiting."""
    trace = run_tasks(EagerEnergy(), length_s=(1.0, 1.0), energy_j=(1e-3, 1.1e-3), loops=5_000_000)
    assert set(trace["worker"]) == {0, 1}


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (
            RaisesAt(count=3),
            starpu.PolicyRaisedError,
            r"RaisesAt raised at task \d+ \(spin\).*the policy gave up",
        ),
        (Always(answer=77), starpu.PolicyAnswerError, r"Always answered 77 for task \d+ \(spin\)"),
        (Always(answer=-1), starpu.PolicyAnswerError, r"Always answered -1"),
        (TakesRow(row=99), starpu.PolicyAnswerError, r"TakesRow answered 99"),
        (
            NeverTakes(),
            starpu.PolicyStarvedError,
            r"NeverTakes left every worker idle while task \d+ \(spin\)",
        ),
    ],
)
def test_a_policy_that_misbehaves_ends_the_run_with_its_name(
    policy: PlacementPolicy | PullPolicy, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_tasks(policy)


def test_a_policy_that_cannot_be_compiled_says_why() -> None:
    with pytest.raises(PolicyCompileError, match=r"Uncompilable: pick or a hook cannot be compiled"):
        run_tasks(Uncompilable())


@two_workers
@pytest.mark.parametrize("policy", [EagerEnergy(), EarliestFinish()], ids=["pull", "placement"])
def test_no_wake_up_is_lost_over_many_short_bursts(policy: PlacementPolicy | PullPolicy) -> None:
    with starpu.Runtime(cpu_workers=2, scheduler=CompiledPolicy(policy), watts=watts, trace=False) as runtime:
        spin = runtime.codelet("spin", SPIN, model="costs")
        graph = runtime.graph()
        costs = starpu.Costs([1e-6, 1e-6], [1e-5, 1e-5])
        for i in range(5):
            handle = runtime.register(np.ones(1, np.float32))
            graph.add(spin, [handle], SPIN.pack([(1,)], {"loops": 50 * i}), costs=costs)
        for _ in range(4000):
            graph.submit()
            runtime.wait_all()
