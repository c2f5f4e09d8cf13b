"""The contract finds what breaks it: each of these policies fails the test that is about its fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from schedulers import PlacementPolicy, PullPolicy
from schedulers.testing import PolicyContract
from tests.schedulers import broken_policies as broken
from tests.schedulers.policies import RaisesAt

ELIGIBLE = "test_every_answer_is_a_worker_or_row_that_can_take_the_task"
ALIKE = "test_compiled_and_interpreted_answer_and_remember_alike"
TWICE = "test_the_same_course_twice_gets_the_same_answers"
ORDER = "test_the_order_of_workers_decides_nothing_but_ties"
NEEDS = "test_what_its_needs_do_not_name_may_be_unknown"
AT_REST = "test_somebody_takes_a_task_on_a_machine_at_rest"
REFUSED = "test_bad_parameters_are_refused_by_a_message_with_the_value"
GRAPH = "test_it_finishes_a_random_graph_on_a_simulated_node"
FIELDS = "test_its_fields_are_numbers"

TESTS = {name for name in dir(PolicyContract) if name.startswith("test_")}


def contract(
    policy: PlacementPolicy | PullPolicy, bad_parameters: Sequence[Mapping[str, Any]] = ()
) -> PolicyContract:
    made = PolicyContract()
    made.policy, made.bad_parameters = policy, bad_parameters
    return made


CASES = [
    (ELIGIBLE, broken.ForgetsWhoCanRun(), r"ForgetsWhoCanRun answered \d; the task can run on workers"),
    (ELIGIBLE, broken.TripsOverNan(), r"TripsOverNan answered -1; the task can run on workers"),
    (ELIGIBLE, broken.OneRowTooMany(), r"OneRowTooMany answered (\d); there are \1 rows, or -1"),
    (ELIGIBLE, RaisesAt(count=3), r"RaisesAt raised ArithmeticError: the policy gave up"),
    (ELIGIBLE, broken.HookRaises(), r"HookRaises raised ArithmeticError: never ends well"),
    (ALIKE, broken.Overflows(), r"compiled and interpreted: answers differ"),
    (ALIKE, broken.RemembersOverflow(), r"compiled and interpreted: memories differ"),
    (TWICE, broken.Dice(), r"the first and the second time: answers differ"),
    (ORDER, broken.LowestNumber(), r"the answers depend on the order of the workers"),
    (ORDER, broken.LowestNumberPulls(), r"the answers depend on the order of the workers"),
    (NEEDS, broken.NeedsMoreThanItSays(), r"what NEEDS does not name is NaN, and every worker stays idle"),
    (AT_REST, broken.WaitsForever(), r"every worker stays idle while tasks wait"),
    (GRAPH, broken.GivesUpLate(), r"policy GivesUpLate raised at task \d+ .*a hundred tasks are enough"),
    (GRAPH, broken.WaitsForever(), r"policy WaitsForever left every worker idle while task 0 "),
    (FIELDS, broken.HoldsText(), r"mode must be a number, got 'fast'"),
]


@pytest.mark.parametrize(
    ("test", "policy", "message"), CASES, ids=[f"{type(p).__name__}" for _, p, _ in CASES]
)
def test_a_broken_policy_fails_the_test_that_is_about_its_fault(
    test: str, policy: PlacementPolicy | PullPolicy, message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        getattr(contract(policy), test)()


@pytest.mark.parametrize(
    ("policy", "bad", "message"),
    [
        (broken.TakesAnyWeight(), [{"weight": -1.0}], r"TakesAnyWeight takes {'weight': -1.0}"),
        (broken.TakesAnyWeight(), [], r"bad_parameters has nothing for weight"),
        (broken.MumblesItsRefusal(), [{"weight": -1.0}], r"names no field and value of {'weight': -1.0}"),
    ],
    ids=["TakesAnyWeight", "nothing-tried", "MumblesItsRefusal"],
)
def test_parameters_that_are_not_refused_fail_it(
    policy: PlacementPolicy | PullPolicy, bad: Sequence[Mapping[str, Any]], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        getattr(contract(policy, bad), REFUSED)()


def test_every_test_of_the_contract_is_seen_to_fail() -> None:
    assert {test for test, _, _ in CASES} | {REFUSED} == TESTS
