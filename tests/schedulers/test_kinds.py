"""The table of kinds in a policy's memory."""

from __future__ import annotations

import numpy as np
import pytest

from schedulers import LpQuota, Park
from schedulers.kinds import KINDS, MAX_CLASSES, add_kind, costs_by_class, find_kind
from tests.schedulers.records import empty_memory, kinds_of, workers_of


def test_each_kind_keeps_values_of_its_own() -> None:
    """Footprints that differ in the upper half, the lower half or the sign only, and codelets."""
    memory = empty_memory()
    keys = [(c, f) for c in (-1, 0, 7) for f in (0, 1, -1, 1 << 32, (1 << 32) + 1, 2**63 - 1, -(2**63))]
    for number, (codelet, footprint) in enumerate(keys):
        memory[add_kind(memory, 100, 2, codelet, footprint) + 1] = number
    assert memory[:100].sum() == 0
    for number, (codelet, footprint) in enumerate(keys):
        assert memory[find_kind(memory, 100, 2, codelet, footprint) + 1] == number
        assert add_kind(memory, 100, 2, codelet, footprint) == find_kind(memory, 100, 2, codelet, footprint)


def test_a_kind_that_was_not_added_is_not_found() -> None:
    memory = empty_memory()
    add_kind(memory, 0, 1, 3, 5)
    assert find_kind(memory, 0, 1, 3, 6) == -1
    assert find_kind(memory, 0, 1, 4, 5) == -1


def test_a_full_table_says_so() -> None:
    memory = empty_memory()
    for footprint in range(KINDS):
        add_kind(memory, 0, 1, 0, footprint)
    assert find_kind(memory, 0, 1, 0, KINDS - 1) >= 0
    assert find_kind(memory, 0, 1, 0, KINDS) == -1
    with pytest.raises(ValueError, match=f"more than {KINDS} kinds"):
        add_kind(memory, 0, 1, 0, KINDS)


def test_costs_by_class_are_those_of_one_worker_of_each() -> None:
    workers = workers_of([1, 0, 1], [[1.0, 2.0], [np.nan, 4.0]], [[5.0, 6.0], [7.0, 8.0]])
    lengths, energies, units, first = costs_by_class(LpQuota(), kinds_of([1, 1]), workers)
    np.testing.assert_array_equal(lengths, [[1, 2], [np.nan, 4]])
    np.testing.assert_array_equal(energies, [[5, 6], [np.nan, 8]])
    assert units.tolist() == [1, 2]
    assert workers[0]["worker_class"][first].tolist() == [0, 1]


def test_an_unknown_cost_stops_the_plan_of_a_policy_that_needs_it() -> None:
    workers = workers_of([0], [[1.0]])
    workers["energy_j"][:] = np.nan
    needs = r"^policy LpQuota needs energy_j of codelet 0, .*: `python -m experiments.calibrate` measures it$"
    with pytest.raises(ValueError, match=needs):
        costs_by_class(LpQuota(), kinds_of([1]), workers)
    assert np.isnan(costs_by_class(Park(), kinds_of([1]), workers)[1]).all()


def test_too_many_classes_are_refused() -> None:
    count = MAX_CLASSES + 1
    with pytest.raises(ValueError, match=f"got {count} in {count}"):
        costs_by_class(LpQuota(), kinds_of([1]), workers_of(range(count), [[1.0] * count]))
