"""The best schedule against all schedules, and the bounds against it."""

from __future__ import annotations

import numpy as np
import pytest

from schedulers.bounds import BoundError, Graph, best_schedule, least_graph_makespan_s
from tests.schedulers.bounds.exhaustive import every_schedule, small


@pytest.mark.parametrize("seed", range(15))
def test_it_is_the_best_of_all_schedules(seed: int) -> None:
    case = small(seed)
    found = every_schedule(case)
    best = best_schedule(case.graph, **case.figures)
    assert best.energy_j == pytest.approx(found[:, 0].min(), rel=1e-5)
    assert best.proven
    deadline_s = np.quantile(found[:, 2], 0.2)
    in_time_j = found[found[:, 2] <= deadline_s, 0].min()
    assert best_schedule(case.graph, **case.figures, deadline_s=deadline_s).energy_j == pytest.approx(
        in_time_j, rel=1e-5
    )


@pytest.mark.parametrize("seed", range(15))
def test_the_least_makespan_of_the_linear_program_is_at_most_that_of_the_best_schedule(seed: int) -> None:
    """And the best schedule's is that of all schedules."""
    case = small(seed)
    lengths, units = case.figures["length_s"], case.figures["units"]
    best = best_schedule(case.graph, lengths, np.zeros((3, 2)), units, static_w=1.0)
    assert best.makespan_s == pytest.approx(every_schedule(case)[:, 2].min(), rel=1e-5)
    assert least_graph_makespan_s([case.graph], lengths, units) <= best.makespan_s * (1 + 3e-6)


@pytest.mark.parametrize("seed", range(10))
def test_with_transfers_it_is_the_best_of_all_schedules(seed: int) -> None:
    case = small(seed)
    found = every_schedule(case, apart=True)
    best = best_schedule(case.graph, **case.figures, apart=[False, True])
    assert best.energy_j == pytest.approx(found[:, 0].min(), rel=1e-5)


def test_its_places_and_starts_are_a_schedule_of_that_energy() -> None:
    case = small(7)
    best = best_schedule(case.graph, **case.figures)
    kinds = np.array(case.graph.kinds)
    lengths = case.figures["length_s"][kinds, best.classes]
    ends_s = best.starts_s + lengths
    assert all(best.starts_s[u] >= ends_s[t] - 1e-6 for t, u in case.graph.edges)
    assert ends_s.max() == pytest.approx(best.makespan_s)
    for r, units in enumerate(case.figures["units"]):
        own = best.classes == r
        for start in best.starts_s[own]:
            running = (best.starts_s[own] <= start + 1e-6) & (ends_s[own] > start + 1e-6)
            assert running.sum() <= units
    joules = case.figures["energy_j"][kinds, best.classes].sum()
    assert best.energy_j == pytest.approx(joules + case.figures["static_w"] * best.makespan_s)


def test_no_schedule_of_whole_tasks_by_the_deadline_is_refused() -> None:
    """Cut in two, three tasks of 1 s would take 1.5 s on two workers."""
    with pytest.raises(BoundError, match=r"no schedule of these 3 whole tasks ends by the deadline, 1.6"):
        best_schedule(Graph([0, 0, 0]), [[1.0]], [[1.0]], [2], static_w=0.0, deadline_s=1.6)


def test_a_large_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="65 tasks are too many"):
        best_schedule(Graph([0] * 65), [[1.0]], [[1.0]], [2], static_w=0.0)
