"""The area bound against closed forms, all placements of whole tasks, and all corners of the linear program."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from schedulers.bounds import BoundError, area_bound, fewest_watts, least_makespan_s

NAN = math.nan


def random_instance(seed: int) -> dict[str, Any]:
    """Two kinds, two classes, some of which cannot run a kind."""
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.5, 5.0, (2, 2))
    if seed % 3 == 0:
        lengths[rng.integers(2), rng.integers(2)] = NAN
    return {
        "counts": rng.integers(1, 4, 2),
        "length_s": lengths,
        "energy_j": rng.uniform(0.0, 20.0, (2, 2)),
        "units": rng.integers(1, 3, 2),
        "static_w": float(rng.choice([0.0, 1.0, 10.0])),
    }


def whole_schedules(instance: dict[str, Any]) -> Any:
    """Yield (joules, makespan) of every placement of whole, independent tasks on workers."""
    kinds = np.repeat(np.arange(2), instance["counts"])
    classes = np.repeat(np.arange(2), instance["units"])
    for placed in itertools.product(range(classes.size), repeat=kinds.size):
        lengths = [instance["length_s"][k, classes[w]] for k, w in zip(kinds, placed, strict=True)]
        if np.isnan(lengths).any():
            continue
        makespan_s = np.bincount(placed, weights=lengths).max()
        joules = sum(instance["energy_j"][k, classes[w]] for k, w in zip(kinds, placed, strict=True))
        yield joules + instance["static_w"] * makespan_s, makespan_s


def best_corner_j(instance: dict[str, Any], deadline_s: float) -> float:
    """Least objective over the corners of the program: every choice of as many tight constraints as unknowns."""
    d, e = np.nan_to_num(instance["length_s"]), instance["energy_j"]
    runs = ~np.isnan(instance["length_s"])
    equal = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0]], float)
    below = [[*(-np.eye(4)[i]), 0] for i in range(4)]
    below += [[d[0, r] * (r == 0), d[0, r] * (r == 1), d[1, r] * (r == 0), d[1, r] * (r == 1), -m]
              for r, m in enumerate(instance["units"])]  # fmt: skip
    below += [[0, 0, 0, 0, 1]]
    limits = np.array([0, 0, 0, 0, 0, 0, deadline_s])
    fixed = [i for i in range(4) if not runs.ravel()[i]]
    rows, best = np.array(below, float), math.inf
    for tight in itertools.combinations(range(len(rows)), 3):
        if not set(fixed) <= set(tight):
            continue
        matrix = np.vstack([equal, rows[list(tight)]])
        right = np.append(instance["counts"], limits[list(tight)])
        if abs(np.linalg.det(matrix)) < 1e-9 or not np.isfinite(right).all():
            continue
        x = np.linalg.solve(matrix, right)
        if (rows @ x <= limits + 1e-9).all():
            best = min(best, float((e.ravel() * x[:4]).sum() + instance["static_w"] * x[4]))
    return best


@pytest.mark.parametrize("seed", range(60))
def test_no_placement_of_whole_tasks_takes_fewer_joules(seed: int) -> None:
    instance = random_instance(seed)
    schedules = list(whole_schedules(instance))
    assert area_bound(**instance).energy_j <= min(joules for joules, _ in schedules) * (1 + 1e-9)
    deadline_s = np.median([makespan_s for _, makespan_s in schedules])
    in_time = min(joules for joules, makespan_s in schedules if makespan_s <= deadline_s)
    assert area_bound(**instance, deadline_s=deadline_s).energy_j <= in_time * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(60))
def test_it_is_the_best_corner_of_the_program(seed: int) -> None:
    instance = random_instance(seed)
    least_s = least_makespan_s(instance["counts"], instance["length_s"], instance["units"])
    for deadline_s in (1e6, 1.3 * least_s):
        bound = area_bound(**instance, deadline_s=deadline_s)
        assert bound.energy_j == pytest.approx(best_corner_j(instance, deadline_s), rel=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_its_tasks_are_a_solution_of_that_energy(seed: int) -> None:
    instance = random_instance(seed)
    bound = area_bound(**instance)
    np.testing.assert_allclose(bound.tasks.sum(axis=1), instance["counts"])
    assert (bound.tasks >= 0).all()
    assert (bound.tasks[np.isnan(instance["length_s"])] == 0).all()
    busy_s = np.nansum(bound.tasks * instance["length_s"], axis=0) / instance["units"]
    joules = (bound.tasks * instance["energy_j"]).sum() + instance["static_w"] * busy_s.max()
    assert bound.energy_j == pytest.approx(joules)
    assert bound.makespan_s == pytest.approx(busy_s.max())


def test_one_kind_without_static_watts_goes_to_its_cheapest_class() -> None:
    bound = area_bound([10], [[1.0, 2.0]], [[3.0, 1.0]], [1, 1], static_w=0.0)
    assert bound.energy_j == pytest.approx(10.0)
    np.testing.assert_allclose(bound.tasks, [[0, 10]], atol=1e-9)


def test_dear_static_watts_balance_the_classes() -> None:
    """1 s and 2 s a task: in balance the rates add up, T = 10 / (1 + 1/2) = 20/3 s."""
    bound = area_bound([10], [[1.0, 2.0]], [[3.0, 1.0]], [1, 1], static_w=100.0)
    assert bound.makespan_s == pytest.approx(20 / 3)
    assert bound.energy_j == pytest.approx(3 * 20 / 3 + 10 / 3 + 100 * 20 / 3)


def test_a_deadline_moves_only_as_many_tasks_as_it_must() -> None:
    """The cheap class takes 2 s a task: by 15 s it has done 7.5 of 10 and the other class 2.5."""
    bound = area_bound([10], [[1.0, 2.0]], [[3.0, 1.0]], [1, 1], static_w=0.0, deadline_s=15.0)
    assert bound.energy_j == pytest.approx(2.5 * 3 + 7.5, rel=1e-5)


def test_tiny_and_huge_figures_give_the_same_shares() -> None:
    shares = []
    for seconds, joules in ((1e-7, 1e-6), (1.0, 1.0), (1e5, 1e6)):
        lengths, energies = [[seconds, 2 * seconds]], [[3 * joules, joules]]
        bound = area_bound([10**6], lengths, energies, [3, 5], static_w=0.9 * joules / seconds)
        shares.append(bound.tasks / 10**6)
    np.testing.assert_allclose(shares[0], shares[1], atol=1e-6)
    np.testing.assert_allclose(shares[2], shares[1], atol=1e-6)


def test_a_deadline_before_the_least_makespan_is_refused_with_it() -> None:
    with pytest.raises(BoundError, match=r"deadline_s=6 is before the least makespan.*6.66667 s"):
        area_bound([10], [[1.0, 2.0]], [[3.0, 1.0]], [1, 1], static_w=0.0, deadline_s=6.0)
    with pytest.raises(BoundError, match=r"deadline_s=6 is before"):
        fewest_watts([10], [[1.0, 2.0]], [1, 1], [1.0, 1.0], deadline_s=6.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length_s": [[NAN, NAN]]}, "no worker class can run kind 0"),
        ({"energy_j": [[NAN, 1.0]]}, "energy_j must be known"),
        ({"counts": [0]}, "counts must be above 0"),
        ({"units": [0, 1]}, "units must be 1 or more"),
        ({"length_s": [[0.0, 1.0]]}, "length_s must be above 0"),
        ({"length_s": [[1.0]]}, r"has the shape \(1, 1\), expected \(kinds, 2\)"),
        ({"static_w": NAN}, "static_w must be 0 or more, got nan"),
    ],
)
def test_figures_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    good = {
        "counts": [1],
        "length_s": [[1.0, 1.0]],
        "energy_j": [[1.0, 1.0]],
        "units": [1, 1],
        "static_w": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        area_bound(**(good | change))


@pytest.mark.parametrize("seed", range(30))
def test_the_fewest_watts_are_those_of_the_best_of_all_active_sets(seed: int) -> None:
    """Each set of active workers is tried; the makespan of a set is a linear program without integers."""
    rng = np.random.default_rng(seed)
    counts, units = rng.integers(1, 20, 3), rng.integers(1, 4, 2)
    lengths, busy_w = rng.uniform(0.5, 5.0, (3, 2)), rng.uniform(1.0, 50.0, 2)
    deadline_s = rng.uniform(1.05, 3.0) * least_makespan_s(counts, lengths, units)
    best_w = math.inf
    for active in itertools.product(*(range(m + 1) for m in units)):
        on = [r for r in range(2) if active[r]]
        if on and least_makespan_s(counts, lengths[:, on], np.array(active)[on]) <= deadline_s:
            best_w = min(best_w, float(busy_w @ active))
    chosen = fewest_watts(counts, lengths, units, busy_w, deadline_s=deadline_s)
    assert chosen.watts == pytest.approx(best_w)
    assert busy_w @ chosen.active == pytest.approx(best_w)
