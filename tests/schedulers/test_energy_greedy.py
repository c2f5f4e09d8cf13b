"""energy_greedy against a schedule worked out by hand, and against StarPU's dm where it is minimum completion time."""

from __future__ import annotations

import math
import random

import pytest

from schedulers import EnergyGreedy
from tests.schedulers.schedules import Job, Node, simulate

NODE = Node("pair", ("big", "little", "little"), {"big": (2.0, 32.0), "little": (1.0, 5.0)})
A = {"big": (10e-3, 0.30), "little": (25e-3, 0.10)}
B = {"big": (4e-3, 0.12), "little": (20e-3, 0.08)}
C = {"big": (20e-3, 0.60), "little": (25e-3, 0.10)}
JOBS = [*[Job(A)] * 6, Job(B, after=(0, 2)), Job(C, after=(6,))]


def test_it_takes_the_cheapest_worker_that_finishes_within_the_slowdown() -> None:
    """max_slowdown=3. Finishes are of (big, little0, little1), in ms from the moment of placing.

    Tasks 0 to 5 are placed one after the other at 0, some microseconds apart:

    0  10, 25, 25: limit 30, all may; little0 and little1 tie in joules and finish: lower id      little0   0-25
    1  10, 50, 25: limit 30; little1 for 0.10 J                                                   little1   0-25
    2  10, 50, 50: limit 30; only big                                                             big0      0-10
    3  20, 50, 50: limit 60; the littles tie in joules; little0 was given its task earlier        little0  25-50
    4  20, 75, 50: limit 60; little1                                                              little1  25-50
    5  20, 75, 75: limit 60; only big                                                             big0     10-20
    6  ready at 25, when 0 and 2 are done. big is free, the littles have 25 ms left:
       4, 45, 45: limit 12; only big                                                              big0     25-29
    7  ready at 29; the littles have 21 ms left: 20, 46, 46: limit 60;
       little0 and little1 for 0.10 J, little0 is free some microseconds earlier                  little0  50-75

    Joules: 5 x 0.10 + 2 x 0.30 + 0.12.
    """
    outcome = simulate(EnergyGreedy(max_slowdown=3.0), NODE, JOBS)
    assert outcome.placed == [
        "little0", "little1", "big0", "little0", "little1", "big0", "big0", "little0"
    ]  # fmt: skip
    hand_ms = [(0, 25), (0, 25), (0, 10), (25, 50), (25, 50), (10, 20), (25, 29), (50, 75)]
    for (start, end), (start_ms, end_ms) in zip(outcome.milliseconds, hand_ms, strict=True):
        assert (start, end) == (pytest.approx(start_ms, abs=0.1), pytest.approx(end_ms, abs=0.1))
    assert outcome.energy_j == pytest.approx(1.22)
    eager = simulate("eager", NODE, JOBS)
    assert eager.placed != outcome.placed
    assert eager.energy_j > outcome.energy_j


def test_without_a_slowdown_it_places_as_starpu_dm_does() -> None:
    """StarPU's dm is minimum completion time; lengths are random, so that only equal workers tie."""
    rng = random.Random(3)
    jobs = []
    for i in range(40):
        big_s, little_s = rng.uniform(2e-3, 9e-3), rng.uniform(5e-3, 20e-3)
        after = tuple(rng.sample(range(i), 2)) if i >= 12 else ()
        jobs.append(Job({"big": (big_s, 30 * big_s), "little": (little_s, 4 * little_s)}, after))
    mct = simulate("dm", NODE, jobs).placed
    assert simulate(EnergyGreedy(max_slowdown=1.0), NODE, jobs).placed == mct
    assert set(mct) == {"big0", "little0", "little1"}


def test_with_any_slowdown_only_joules_count() -> None:
    """little0 and little1 tie at 0.10 J, so the earlier finish takes turns; big never runs."""
    outcome = simulate(EnergyGreedy(max_slowdown=math.inf), NODE, [Job(A)] * 6)
    assert outcome.placed == ["little0", "little1"] * 3


@pytest.mark.parametrize(("transfer_w", "worker"), [(0.0, "card0"), (100.0, "core0")])
def test_joules_of_transfers_count_where_their_watts_are_given(transfer_w: float, worker: str) -> None:
    """10 MB take StarPU 2 ms to the card (twice size over bandwidth): at 100 W 0.2 J, more than the card saves."""
    node = Node("carded", ("core",), {"card": (5.0, 105.0), "core": (1.0, 9.0)}, gpus=("card",))
    jobs = [Job({"card": (1e-3, 0.1), "core": (20e-3, 0.16)})]
    policy = EnergyGreedy(max_slowdown=10.0, transfer_w=transfer_w)
    assert simulate(policy, node, jobs, floats=2_500_000).placed == [worker]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_slowdown": 0.9}, r"^max_slowdown must be a number at least 1, got 0.9$"),
        ({"max_slowdown": math.nan}, "got nan"),
        ({"max_slowdown": "fast"}, "max_slowdown must be a number at least 1, got 'fast'"),
        ({"transfer_w": -1.0}, "transfer_w must be a number at least 0, got -1.0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(parameters: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnergyGreedy(**parameters)
