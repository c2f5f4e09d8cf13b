"""How near simulated epochs are to real ones, with numbers of one's own."""

from __future__ import annotations

import pytest

from benchmarks.fidelity_table import Compared, markdown, order_of, verdict, verdict_lines
from benchmarks.measuring import Spread


def row(scheduler: str, real_s: list[float], simulated_s: float, tile: int = 16) -> Compared:
    return Compared("lenet", 2, tile, scheduler, Spread.of(real_s), simulated_s)


SAME = [row("a", [1.0, 1.1, 1.2], 1.0), row("b", [2.0, 2.1, 2.2], 2.1), row("c", [3.0, 3.1, 3.2], 3.4)]


def test_an_error_is_the_simulated_over_the_real_median_less_one() -> None:
    assert [one.error for one in SAME] == pytest.approx([1 / 1.1 - 1, 0.0, 3.4 / 3.1 - 1])


def test_the_same_order_has_a_tau_of_1_and_the_reverse_of_minus_1() -> None:
    assert order_of(SAME).tau == pytest.approx(1.0)
    turned = [row(one.scheduler, [*one.real_s.values], 10 - one.simulated_s) for one in SAME]
    found = order_of(turned)
    assert (found.tau, found.told_apart, found.kept) == (pytest.approx(-1.0), 3, 0)


def test_policies_whose_real_epochs_overlap_are_not_told_apart() -> None:
    """b and c overlap; a is faster than both, really and simulated. So one of three pairs is against the medians."""
    rows = [row("a", [1.0, 1.1], 1.0), row("b", [2.0, 3.0], 2.6), row("c", [2.2, 3.0], 2.4)]
    found = order_of(rows)
    assert (found.told_apart, found.kept) == (2, 2)
    assert found.tau == pytest.approx(1 / 3)
    assert verdict(rows)["tau_told_apart"] == 1.0


def test_the_verdict_is_over_all_workloads_and_beside_its_aims() -> None:
    far = row("a", [1.0], 1.5, tile=64)
    found = verdict([*SAME, far])
    assert found["largest_error"] == pytest.approx(0.5)
    assert found["median_error"] == pytest.approx((abs(1 / 1.1 - 1) + 3.4 / 3.1 - 1) / 2)
    assert found["tau"] == pytest.approx(1.0), "one scheduler alone has no order"
    lines = verdict_lines(found)
    assert lines[1] == "largest error 50.0%, aim: at most 25%"
    text = markdown([far], lines)
    assert "| lenet | 2 | 64 | a | 1.000 (1.000 - 1.000) | 1.500 | +50.0% |" in text


def test_without_two_schedulers_there_is_no_order() -> None:
    found = verdict([row("a", [1.0], 1.0)])
    assert (found["tau"], found["tau_told_apart"]) == (None, None)
    assert len(verdict_lines(found)) == 2
