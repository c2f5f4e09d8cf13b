"""The contract that every policy keeps, as a test class to subclass::

    class TestMyPolicy(PolicyContract):
        policy = MyPolicy(slowdown=1.5)
        bad_parameters = ({"slowdown": 0.5},)

pytest runs it as it stands. The class of the policy must be importable by name.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar

import numpy as np

from schedulers.base import PlacementPolicy, PullPolicy
from schedulers.compiled import CompiledPolicy
from schedulers.courses import Course, Outcome
from schedulers.interpreted import InterpretedPolicy

RELATIVE = 1e-9
"""By how much compiled and interpreted numbers may differ: they may call different mathematical libraries."""


class PolicyContract:
    """What StarPU, and who reads results, relies on. Subclass it and set ``policy``."""

    policy: PlacementPolicy | PullPolicy
    bad_parameters: Sequence[Mapping[str, Any]] = ()
    """Fields that the policy must refuse, each to be put in place of its own: at least one for each number."""
    courses: ClassVar[int] = 20
    """How many random courses of events each test plays."""
    graph_command: ClassVar[tuple[str, ...]] = (sys.executable, "-m", "experiments.policy_check")
    """Runs a random task graph on a simulated node under the policy."""

    def test_its_fields_are_numbers(self) -> None:
        """They are compiled in as constants."""
        assert isinstance(self.policy, PlacementPolicy | PullPolicy), f"{self.policy!r} is no policy"
        for name, value in self._values().items():
            assert isinstance(value, bool | int | float), f"{name} must be a number, got {value!r}"

    def test_every_answer_is_a_worker_or_row_that_can_take_the_task(self) -> None:
        """Workers that cannot run the task, transfers, b-levels and live watts that are unknown are among them."""
        compiled = CompiledPolicy(self.policy)
        for seed in range(self.courses):
            Course(seed).play(compiled)

    def test_compiled_and_interpreted_answer_and_remember_alike(self) -> None:
        """The debugger must see what the run does."""
        compiled, interpreted = CompiledPolicy(self.policy), InterpretedPolicy(self.policy)
        for seed in range(self.courses):
            one, other = Course(seed).play(compiled), Course(seed).play(interpreted)
            _assert_equal(one, other, f"course {seed}: compiled and interpreted", RELATIVE)

    def test_the_same_course_twice_gets_the_same_answers(self) -> None:
        """Nothing but the arguments decides: no clock, no random numbers, no module state."""
        compiled = CompiledPolicy(self.policy)
        for seed in range(self.courses):
            first, second = (Course(seed).play(compiled) for _ in range(2))
            _assert_equal(first, second, f"course {seed}: the first and the second time", 0.0)

    def test_the_order_of_workers_decides_nothing_but_ties(self) -> None:
        """Workers, no two of them alike, are shuffled: the same worker must be chosen, at its new place."""
        compiled = CompiledPolicy(self.policy)
        for seed in range(self.courses):
            course = Course(seed, ties=False, unknown=False)
            plain = course.play(compiled).answers
            shuffled = course.play(compiled, course.order()).answers
            assert plain == shuffled, f"course {seed}: the answers depend on the order of the workers"

    def test_what_its_needs_do_not_name_may_be_unknown(self) -> None:
        """A run does not start without what ``NEEDS`` names; the rest is NaN where nobody measured it."""
        compiled = CompiledPolicy(self.policy)
        for seed in range(self.courses):
            Course(seed, known=self.policy.NEEDS).play(compiled)
            if isinstance(self.policy, PullPolicy):
                started = Course(seed, known=self.policy.NEEDS).someone_starts(compiled)
                assert started, f"course {seed}: what NEEDS does not name is NaN, and every worker stays idle"

    def test_somebody_takes_a_task_on_a_machine_at_rest(self) -> None:
        """Otherwise nothing would ever happen again. A placement policy has to answer a worker anyway."""
        if isinstance(self.policy, PullPolicy):
            compiled = CompiledPolicy(self.policy)
            for seed in range(2 * self.courses):
                started = Course(seed, unknown=seed % 2 == 0).someone_starts(compiled)
                assert started, f"course {seed}: every worker stays idle while tasks wait"

    def test_bad_parameters_are_refused_by_a_message_with_the_value(self) -> None:
        """ValueError, naming field and value. A number that is not one is bad in every field."""
        numbers = {name: value for name, value in self._values().items() if not isinstance(value, bool)}
        tried = [dict(bad) for bad in self.bad_parameters]
        untried = set(numbers) - {name for bad in tried for name in bad}
        assert not untried, f"bad_parameters has nothing for {', '.join(sorted(untried))}"
        tried += [{name: math.nan} for name, value in numbers.items() if isinstance(value, float)]
        for bad in tried:
            message = _refusal(self.policy, bad)
            named = any(name in message and str(value) in message for name, value in bad.items())
            assert named, f"the message names no field and value of {bad}: {message}"

    def test_it_finishes_a_random_graph_on_a_simulated_node(self) -> None:
        """In a process of its own; every task runs once, after those that it waits for, where it can."""
        owner = type(self.policy)
        name = f"{owner.__module__}:{owner.__qualname__}"
        command = [*self.graph_command, name, "--parameters", json.dumps(self._values())]
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment = os.environ | {"PYTHONPATH": paths}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"

    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self.policy, field.name) for field in fields(self.policy)}


def _refusal(policy: PlacementPolicy | PullPolicy, bad: Mapping[str, Any]) -> str:
    """What the policy says when it is made with bad parameters."""
    try:
        replace(policy, **bad)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{type(policy).__name__} takes {dict(bad)}; it must raise ValueError")


def _assert_equal(one: Outcome, other: Outcome, what: str, relative: float) -> None:
    assert one.answers == other.answers, f"{what}: answers differ"
    np.testing.assert_allclose(one.memory, other.memory, relative, err_msg=f"{what}: memories differ")
    for mine, theirs in zip(one.scores, other.scores, strict=True):
        np.testing.assert_allclose(mine, theirs, relative, err_msg=f"{what}: scores differ")
