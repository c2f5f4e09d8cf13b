"""Erase: what it learns, how parallelism shares idle watts, and a schedule worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from schedulers import Erase
from schedulers.erase import TABLE, WIDTH
from schedulers.kinds import KEY, KINDS
from tests.schedulers.records import empty_memory, kinds_of, system_of, task_of, workers_of
from tests.schedulers.schedules import Node, jobs_of, simulate

NODE = Node("pair", ("fast", "slow"), {"slow": (1, 6), "fast": (11, 71)})
BY_HAND = ["fast", "fast", "fast", "slow", "fast", "slow"]
JOBS = jobs_of({"A": {"slow": (4, 20), "fast": (1, 60)}}, [("A", ())] * 8)


def test_the_schedule_is_the_one_worked_out_by_hand() -> None:
    """Idle, the machine takes 10 + 1 + 11 = 22 W. A task takes 4 * 5 + 4 * 22 / p mJ on slow, 60 + 22 / p on fast:
    with p = 1 worker busy 108 and 82, with p = 2 64 and 71. In ms:

    0   Both learn: A0 and A1, one each. Slow is busy with its one until 4.
    1   fast has learned; nothing is known of slow: A2. 2: A3. 3: A4, until a little after 4.
    4   slow has learned. fast is busy, so p = 2: 64 < 71, slow takes A5 until 8.
        Then fast is free, p = 2: A6 is cheaper on slow, which is busy. 71 / 64 = 1.11 > 1.05: not stolen.
    8   slow is free and so is fast: p = 1, 82 < 108. slow leaves A6 to fast, which takes it until 9.
        Now p = 2 for slow, which takes A7.
    """
    done = simulate(Erase(explore=1, steal_ratio=1.05), NODE, JOBS)
    assert sorted(done.classes[:2]) == ["fast", "slow"]
    assert done.classes[2:] == BY_HAND
    assert [round(done.start_ms[task]) for task in (5, 6, 7)] == [4, 8, 8]


def test_with_more_patience_for_joules_the_task_is_stolen() -> None:
    """71 / 64 = 1.11 < 1.25: at 4 ms fast takes A6, and at 5 ms A7."""
    done = simulate(Erase(explore=1, steal_ratio=1.25), NODE, JOBS)
    assert done.classes[5:] == ["slow", "fast", "fast"]
    assert [round(done.start_ms[task]) for task in (5, 6, 7)] == [4, 4, 5]


def test_its_schedule_is_not_that_of_eager() -> None:
    assert simulate("eager", NODE, JOBS).classes[2:] != BY_HAND


def learned(policy: Erase, workers: np.ndarray, lengths_s: list[float]) -> np.ndarray:
    """Memory after one task of kind 0 has run on each of these workers."""
    memory = empty_memory()
    for worker, length_s in enumerate(lengths_s):
        assert policy.pick(worker, kinds_of([9]), workers, system_of(), memory) == 0
        policy.task_ended(task_of(0), worker, length_s, system_of(), memory)
    return memory


def test_each_class_runs_so_many_tasks_of_a_kind_and_waits_for_the_first_to_end() -> None:
    policy, memory, workers = Erase(explore=2), empty_memory(), workers_of([0, 0, 0, 1], [[1.0, 1.0]])
    picked = [policy.pick(w, kinds_of([9]), workers, system_of(), memory) for w in (0, 1, 2, 3, 3, 3)]
    assert picked == [0, 0, -1, 0, 0, -1]
    policy.task_ended(task_of(0), 1, 1.0, system_of(), memory)
    assert policy.pick(2, kinds_of([9]), workers, system_of(), memory) == 0


def test_lengths_are_learned_and_those_expected_are_not_looked_at() -> None:
    """Expected says that class 0 is 9 times faster; measured, it is 9 times slower."""
    policy, workers = Erase(explore=1, steal_ratio=1.0), workers_of([0, 1], [[1.0, 9.0]])
    memory = learned(policy, workers, [9.0, 1.0])
    assert policy.pick(0, kinds_of([9]), workers, system_of(), memory) == -1
    assert policy.pick(1, kinds_of([9]), workers, system_of(), memory) == 0


def test_the_prediction_is_the_mean_length_times_own_and_shared_watts() -> None:
    """Lengths of 2 and 4 s: 3 s. 5 - 1 W of its own, 12 W of the machine's shared with the busy one: 3 * (4 + 6) J."""
    policy, workers = Erase(explore=2), workers_of([0, 0], [[1.0]])
    workers["queued"][0] = [1, 0]
    memory = empty_memory()
    for length_s in (2.0, 4.0):
        policy.pick(1, kinds_of([9]), workers, system_of(), memory)
        policy.task_ended(task_of(0), 1, length_s, system_of(), memory)
    assert policy.pick(1, kinds_of([9]), workers, system_of(), memory) == 0
    assert workers[0, 1].score == pytest.approx(30.0)


def test_a_task_is_stolen_only_where_no_cheaper_worker_is_idle() -> None:
    policy, workers = Erase(explore=1, steal_ratio=2.0), workers_of([0, 1, 1], [[1.0, 1.0]])
    memory = learned(policy, workers, [1.5, 1.0])
    workers["queued"][0] = [0, 1, 0]
    assert policy.pick(0, kinds_of([9]), workers, system_of(), memory) == -1
    workers["queued"][0] = [0, 1, 1]
    assert policy.pick(0, kinds_of([9]), workers, system_of(), memory) == 0


def test_kinds_are_learned_apart() -> None:
    """Kind 0 is cheaper on class 1; nothing is known of kind 1, which class 0 then takes to learn."""
    policy = Erase(explore=1, steal_ratio=1.0)
    memory = learned(policy, workers_of([0, 1], [[1.0, 1.0]]), [9.0, 1.0])
    workers = workers_of([0, 1], [[1.0, 1.0]] * 2)
    assert policy.pick(0, kinds_of([9, 9]), workers, system_of(), memory) == 1


def test_the_table_fits_into_a_policys_memory() -> None:
    assert empty_memory().size >= TABLE + KINDS * (KEY + WIDTH)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"explore": 0}, "explore must be a number at least 1, got 0"),
        ({"steal_ratio": 0.9}, "steal_ratio must be a number at least 1, got 0.9"),
        ({"steal_ratio": math.nan}, "got nan"),
    ],
)
def test_a_parameter_out_of_range_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Erase(**given)
