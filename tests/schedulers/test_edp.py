"""edp against a schedule worked out by hand, and against StarPU's dm where only the delay counts."""

from __future__ import annotations

import pytest

from schedulers import Edp
from tests.schedulers.schedules import Job, Node, simulate

NODE = Node("pair", ("big", "little", "little"), {"big": (2.0, 32.0), "little": (1.0, 5.0)})
A = {"big": (10e-3, 0.30), "little": (25e-3, 0.10)}
B = {"big": (4e-3, 0.12), "little": (20e-3, 0.09)}
JOBS = [*[Job(A)] * 6, Job(B, after=(0, 2)), Job(A, after=(6,))]


def test_it_takes_the_least_product_of_added_joules_and_delay() -> None:
    """Exponents 1 and 1. The machine idles at 10 + 2 + 1 + 1 = 14 W; D in ms, E in J, P = D x E.

    Tasks 0 to 5 are placed at 0; "little" is the one that is free first:
    0  horizon  0: big D 10, E .30 + .140, P  4.4; little D 25, E .10 + .350, P 11.25     big0     0-10
    1  horizon 10: big D 20, E .30 + .140, P  8.8; little D 25, E .10 + .210, P  7.75     little0  0-25 (tie: lower id)
    2  horizon 25: big D 20, E .30,        P  6.0; little1 D 25, E .10,       P  2.5      little1  0-25
    3  horizon 25: big D 20, E .30,        P  6.0; little D 50, E .10 + .350, P 22.5      big0    10-20
    4  horizon 25: big D 30, E .30 + .070, P 11.1; little D 50, as before,    P 22.5      big0    20-30
    5  horizon 30: big D 40, E .30 + .140, P 17.6; little D 50, E .10 + .280, P 19.0      big0    30-40
    6  follows 0 and 2, ready at 25: big has 15 ms left (the horizon), the littles are free:
                   big D 19, E .12 + .056, P 3.34; little D 20, E .09 + .070, P  3.2      little0 25-45
                   (If idle watts were charged for the whole delay, big: 7.33 against 7.4.)
    7  follows 6, ready at 45, all are free: as task 0                                    big0    45-55
    """
    outcome = simulate(Edp(), NODE, JOBS)
    assert outcome.placed == ["big0", "little0", "little1", "big0", "big0", "big0", "little0", "big0"]
    hand_ms = [(0, 10), (0, 25), (0, 25), (10, 20), (20, 30), (30, 40), (25, 45), (45, 55)]
    for (start, end), (start_ms, end_ms) in zip(outcome.milliseconds, hand_ms, strict=True):
        assert (start, end) == (pytest.approx(start_ms, abs=0.1), pytest.approx(end_ms, abs=0.1))
    assert simulate("eager", NODE, JOBS).placed != outcome.placed


def test_with_the_delay_alone_it_places_as_starpu_dm_does() -> None:
    policy = Edp(energy_exponent=0.0, delay_exponent=2.0)
    assert simulate(policy, NODE, JOBS).placed == simulate("dm", NODE, JOBS).placed


def test_with_the_energy_alone_it_adds_the_fewest_joules() -> None:
    """Of the first tasks above: 0 adds .44 J on big and .45 on a little, 1 adds .44 and .31.

    Then the horizon is 25: 2 adds .30 on big and .10 on little1, 3 adds .30 and .45.
    """
    outcome = simulate(Edp(energy_exponent=1.0, delay_exponent=0.0), NODE, JOBS[:4])
    assert outcome.placed == ["big0", "little0", "little1", "big0"]


@pytest.mark.parametrize(
    ("exponents", "message"),
    [
        ((-1.0, 1.0), r"^energy_exponent must be a number at least 0, got -1.0$"),
        ((1.0, -1.0), r"^delay_exponent must be a number at least 0, got -1.0$"),
        ((0.0, 0.0), r"^energy_exponent and delay_exponent are both 0: set one of them above 0$"),
    ],
)
def test_a_parameter_out_of_range_is_refused(exponents: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Edp(energy_exponent=exponents[0], delay_exponent=exponents[1])
