"""What a policy is given beyond the choice: hooks, plans, scores in the decision log, live watts, a watch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dahl import starpu
from schedulers import CompiledPolicy, EagerEnergy, InterpretedPolicy
from tests.dahl.children import run_child
from tests.dahl.starpu_kernels import ADD, AFFINE, SPIN
from tests.schedulers.policies import Always, EarliestFinish, Learns, Plans, RaisesAt, SeesWatts
from tests.schedulers.test_installed_policies import two_workers, watts

BOTH = pytest.mark.parametrize("wrap", [CompiledPolicy, InterpretedPolicy])


def affine_args(factor: float = 1.0) -> np.ndarray:
    return AFFINE.pack([(4,)], {"factor": factor, "shift": 0.0})


@BOTH
def test_hooks_are_told_of_every_start_and_end_with_its_length(wrap: Callable[..., Any]) -> None:
    runtime = starpu.Runtime(cpu_workers=1, scheduler=wrap(Learns()), watts=watts)
    with runtime:
        spin = runtime.codelet("spin", SPIN, model="costs")
        costs = starpu.Costs([1e-3], [1e-3])
        handle = runtime.register(np.ones(1, np.float32))
        for _ in range(5):
            runtime.submit(spin, [handle], SPIN.pack([(1,)], {"loops": 3_000_000}), costs=costs)
        runtime.wait_all()
        trace = runtime.take_trace()
        assert runtime._installed is not None
        started, ended, seconds = runtime._installed.memory[:3]
    assert (started, ended) == (5, 5)
    # the hooks stand just around the execution, so theirs is the longer time, by what a busy machine adds
    assert (trace["end_s"] - trace["start_s"]).sum() <= seconds < 10


@BOTH
def test_the_decision_log_has_each_candidate_with_its_estimates_and_score(wrap: Callable[..., Any]) -> None:
    with starpu.Runtime(cpu_workers=1, scheduler=wrap(Learns()), watts=watts, explain=True) as runtime:
        affine = runtime.codelet("affine", AFFINE, model="costs")
        handle = runtime.register(np.ones(4, np.float32))
        for _ in range(3):
            runtime.submit(affine, [handle], affine_args(), costs=starpu.Costs([2e-3], [5e-3]))
        runtime.wait_all()
        decisions = runtime.take_decisions()
        assert runtime.take_decisions().size == 0
    assert list(decisions["decision"]) == [0, 1, 2]
    assert list(decisions["task"]) == [0, 1, 2]
    assert set(decisions["score"]) == {10.0}
    assert set(decisions["length_s"]) == {2e-3}
    assert set(decisions["energy_j"]) == {5e-3}
    assert set(decisions["chosen"]) == {1}
    assert set(decisions["asker"]) == {-1}


def test_a_worker_that_is_late_still_has_its_queue_before_it() -> None:
    with starpu.Runtime(
        cpu_workers=1, scheduler=CompiledPolicy(Always()), watts=watts, explain=True
    ) as runtime:
        spin = runtime.codelet("spin", SPIN, model="costs")

        def submit(loops: int) -> None:
            handle = runtime.register(np.ones(1, np.float32))
            runtime.submit(
                spin, [handle], SPIN.pack([(1,)], {"loops": loops}), costs=starpu.Costs([1e-3], [1.0])
            )

        submit(200_000_000)  # said to take 1 ms
        for _ in range(4):
            submit(1)
        time.sleep(0.02)
        submit(1)
        runtime.wait_all()
        decisions, trace = runtime.take_decisions(), runtime.take_trace()
    late_s = trace["end_s"][trace["task"] == 0][0] - trace["start_s"][trace["task"] == 0][0]
    assert late_s > 0.02, "the first task has to run still when the last one is placed"
    # Of five tasks of 1 ms the first is overdue; the other four are still to come.
    assert decisions["available_s"][-1] == pytest.approx(4e-3, rel=1e-9)


@two_workers
def test_a_pull_decision_names_its_asker() -> None:
    with starpu.Runtime(
        cpu_workers=2, scheduler=CompiledPolicy(EagerEnergy()), watts=watts, explain=True
    ) as runtime:
        affine = runtime.codelet("affine", AFFINE, model="costs")
        costs = starpu.Costs([1e-3, 1e-3], [1e-3, 1e-3])
        for _ in range(10):
            runtime.submit(affine, [runtime.register(np.ones(4, np.float32))], affine_args(), costs=costs)
        runtime.wait_all()
        decisions, trace = runtime.take_decisions(), runtime.take_trace()
    taken = decisions[decisions["chosen"] == 1]
    assert sorted(taken["task"]) == list(range(10))
    assert {(d["task"], d["asker"]) for d in taken} == {(t["task"], t["worker"]) for t in trace}


@two_workers
@BOTH
def test_a_plan_sees_counts_and_costs_before_the_first_task(wrap: Callable[..., Any]) -> None:
    with starpu.Runtime(cpu_workers=2, scheduler=wrap(Plans()), watts=watts) as runtime:
        affine = runtime.codelet("affine", AFFINE, model="costs")
        graph = runtime.graph()
        for _ in range(3):
            handle = runtime.register(np.ones(4, np.float32))
            graph.add(affine, [handle], affine_args(), costs=starpu.Costs([5e-3, 1e-3], [1e-3, 1e-3]))
        runtime.plan([(graph, 7)])
        for _ in range(7):
            graph.submit()
        runtime.wait_all()
        assert runtime._installed is not None
        assert runtime._installed.memory[1] == 21
        assert set(runtime.take_trace()["worker"]) == {1}


def test_the_b_level_is_the_longest_way_to_the_end_of_the_graph() -> None:
    """x -> (y, z) -> y+z: the task on x has 1 + max(2, 3) + 4 ms before the end."""
    with starpu.Runtime(cpu_workers=1, scheduler="eager") as runtime:
        affine, add = runtime.codelet("affine", AFFINE), runtime.codelet("add", ADD)
        x, y, z = (runtime.register(np.ones(4, np.float32)) for _ in range(3))
        graph, args = runtime.graph(), ADD.pack([(4,), (4,)], {})
        ms = [starpu.Costs([length * 1e-3], [0.0]) for length in (1, 2, 3, 4, 9)]
        graph.add(affine, [x], affine_args(), costs=ms[0])
        graph.add(add, [x, y], args, costs=ms[1])
        graph.add(add, [x, z], args, costs=ms[2])
        graph.add(add, [y, z], args, costs=ms[3])
        graph.add(affine, [runtime.register(np.ones(4, np.float32))], affine_args(), costs=ms[4])
        np.testing.assert_allclose(graph.b_levels_s(), [8e-3, 6e-3, 7e-3, 4e-3, 9e-3])


@two_workers
def test_interpreted_and_compiled_decide_alike() -> None:
    outcomes = []
    for wrap in (CompiledPolicy, InterpretedPolicy):
        with starpu.Runtime(
            cpu_workers=2, scheduler=wrap(EarliestFinish()), watts=watts, explain=True
        ) as runtime:
            spin = runtime.codelet("spin", SPIN, model="costs")
            graph = runtime.graph()
            for length in (5.0, 1.0, 3.0, 2.0, 4.0, 1.0):
                handle = runtime.register(np.ones(1, np.float32))
                args = SPIN.pack([(1,)], {"loops": 100_000_000})
                graph.add(spin, [handle], args, costs=starpu.Costs([length, length * 1.5], [1.0, 1.0]))
            graph.submit()
            runtime.wait_all()
            trace = runtime.take_trace()
        outcomes.append(trace["worker"][np.argsort(trace["task"])].tolist())
    assert outcomes[0] == outcomes[1]


def test_what_an_interpreted_policy_raises_is_the_cause() -> None:
    policy = InterpretedPolicy(RaisesAt(count=1))
    with starpu.Runtime(cpu_workers=1, scheduler=policy, watts=watts) as runtime:
        affine = runtime.codelet("affine", AFFINE, model="costs")
        handle = runtime.register(np.ones(4, np.float32))
        runtime.submit(affine, [handle], affine_args(), costs=starpu.Costs([1e-3], [1e-3]))
        with pytest.raises(starpu.PolicyRaisedError, match="the policy gave up") as caught:
            runtime.wait_all()
    assert isinstance(caught.value.__cause__, ArithmeticError)


def test_a_policy_that_never_answers_ends_the_process_with_its_name() -> None:
    done = run_child(
        """
import numpy as np
from dahl import starpu
from schedulers import CompiledPolicy
from tests.dahl.starpu_kernels import AFFINE
from tests.schedulers.policies import NeverAnswers
from tests.schedulers.test_installed_policies import watts

policy = CompiledPolicy(NeverAnswers(), answer_limit_s=0.5)
with starpu.Runtime(cpu_workers=1, scheduler=policy, watts=watts) as runtime:
    affine = runtime.codelet("affine", AFFINE, model="costs")
    runtime.submit(affine, [runtime.register(np.ones(4, np.float32))],
                   AFFINE.pack([(4,)], {"factor": 1, "shift": 0}), costs=starpu.Costs([1e-3], [1e-3]))
    runtime.wait_all()
""",
        seconds=60,
    )
    assert done.returncode == -6
    assert "policy NeverAnswers has not answered for 0.5 s" in done.stderr


def test_replayed_watts_are_what_a_policy_sees_at_each_moment() -> None:
    done = run_child(
        """
import numpy as np
from dahl import starpu
from schedulers import CompiledPolicy
from tests.dahl.run_one_scheduler import NODE, watts_of
from tests.dahl.starpu_kernels import AFFINE
from tests.schedulers.policies import SeesWatts

def main(runtime):
    affine = runtime.codelet("affine", AFFINE, model="costs")
    handle = runtime.register(np.ones(4, np.float32))
    costs = starpu.Costs([2e-3] * len(runtime.workers), [1e-3] * len(runtime.workers))
    for _ in range(4):
        runtime.submit(affine, [handle], AFFINE.pack([(4,)], {"factor": 1, "shift": 0}), costs=costs)
        runtime.wait_all()
    print(runtime._installed.memory[1:9].tolist())

policy = CompiledPolicy(SeesWatts())
replay = [(0.001, 100.0), (0.003, 200.0), (0.005, 300.0)]
starpu.Runtime(platform=NODE, scheduler=policy, watts=watts_of, replayed_watts=replay).run(main)
"""
    )
    seen = done.stdout.strip().splitlines()[-1]
    # at 0, 2, 4 and 6 ms; nobody runs at these moments, so the model says 20 W + 6 * 2 W + 2 * 4 W
    assert seen == "[nan, 100.0, 200.0, 300.0, 40.0, 40.0, 40.0, 40.0]", done.stderr


@BOTH
def test_live_watts_reach_the_policy_with_their_age_and_stale_ones_are_none(wrap: Callable[..., Any]) -> None:
    live = np.full(2, np.nan)
    policy = wrap(SeesWatts(answer=0))
    with starpu.Runtime(cpu_workers=1, scheduler=policy, watts=watts, live_watts=live) as runtime:
        affine = runtime.codelet("affine", AFFINE, model="costs")
        handle = runtime.register(np.ones(4, np.float32))
        for age_s, live_w in [(np.nan, np.nan), (1.0, 123.0), (6.0, 456.0), (0.0, np.nan)]:
            live[:] = runtime.now_s() - age_s, live_w
            runtime.submit(affine, [handle], affine_args(), costs=starpu.Costs([1e-3], [1e-3]))
            runtime.wait_all()
        assert runtime._installed is not None
        memory = runtime._installed.memory
    np.testing.assert_array_equal(memory[1:5], [np.nan, 123.0, np.nan, np.nan])
    assert 1.0 <= memory[10] < 3.0
    assert 6.0 <= memory[11] < 8.0


def test_live_watts_that_are_not_two_numbers_are_refused() -> None:
    with (
        pytest.raises(ValueError, match="two float64"),
        starpu.Runtime(cpu_workers=1, scheduler=CompiledPolicy(Always()), live_watts=np.zeros(3)) as _,
    ):
        pass


def test_replayed_watts_out_of_order_are_refused() -> None:
    runtime = starpu.Runtime(
        cpu_workers=1, scheduler=CompiledPolicy(Always()), replayed_watts=[(2.0, 1.0), (1.0, 1.0)]
    )
    with pytest.raises(ValueError, match="ordered by time"), runtime:
        pass
