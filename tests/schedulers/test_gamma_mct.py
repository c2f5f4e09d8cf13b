"""gamma_mct against a schedule worked out by hand, and against StarPU's dmda, whose formula it has."""

from __future__ import annotations

import random

import pytest

from schedulers import GammaMct
from tests.schedulers.schedules import Job, Node, simulate

NODE = Node(
    "carded", ("core", "core"), {"card": (5.0, 105.0), "core": (1.0, 9.0)}, gpus=("card",), base_w=13.0
)
A = {"card": (4e-3, 0.40), "core": (20e-3, 0.16)}
B = {"card": (1e-3, 0.10), "core": (4e-3, 0.032)}
JOBS = [*[Job(A)] * 8, Job(B, after=(0,)), Job(A, after=(2, 8))]
FLOATS = 2_500_000
CLASSES = Node("classes", ("big", "middle", "little"), {"big": (2, 32), "middle": (2, 14), "little": (1, 5)})


def test_it_weighs_lateness_transfers_joules_and_a_longer_schedule() -> None:
    """gamma = 60 ms/J, alpha = beta = 1. The machine idles at 13 + 5 + 1 + 1 = 20 W: 1.2 ms for each ms of prolonging.

    A buffer has 10 MB, for which StarPU expects 2 ms on the 10 GB/s link: it doubles size over bandwidth for a bus
    that is shared (starpu_transfer_predict). Joules weigh 24 and 9.6 (A), 6 and 1.92 (B) on card and core.
    fitness = lateness + transfer + joules + prolonging, in ms:

    Tasks 0 to 7 are placed at 0, the columns are the card and the core that is free first. A transfer counts where it
    ends after the card is free, which is so for task 0 alone.
    0  finish  6, 20, horizon  0:  0 + 2 + 24 + 7.2 = 33.2     14 + 9.6 + 24   = 47.6     card, booked until 6
    1  finish 10, 20, horizon  6:  0 + 2 + 24 + 4.8 = 30.8     10 + 9.6 + 16.8 = 36.4     card, until 10
    2  finish 14, 20, horizon 10:  0 + 2 + 24 + 4.8 = 30.8      6 + 9.6 + 12   = 27.6     core0 by its id, until 20
    3  finish 14, 20, horizon 20:  0 + 2 + 24 + 0   = 26.0      6 + 9.6 +  0   = 15.6     core1, until 20
    4  finish 14, 40, horizon 20:  0 + 2 + 24 + 0   = 26.0     26 + 9.6 + 24   = 59.6     card, until 14
    5  finish 18, 40, horizon 20:  0 + 2 + 24 + 0   = 26.0     22 + 9.6 + 24   = 55.6     card, until 18
    6  finish 22, 40, horizon 20:  0 + 2 + 24 + 2.4 = 28.4     18 + 9.6 + 24   = 51.6     card, until 22
    7  finish 26, 40, horizon 22:  0 + 2 + 24 + 4.8 = 30.8     14 + 9.6 + 21.6 = 45.2     card, until 26
    8  follows 0, which really ends at about 5.4, and its input is on the card, booked for 20.6 ms more; the cores for
       14.6, horizon 20.6. finish 21.6, 18.6:
                                   3 + 0 + 6 + 1.2 = 10.2       0 + 2 + 1.92    = 3.92     core0, free first; 20-24
    9  follows 2 and 8 at 24, the card is booked for 2 ms more, two buffers are in the host's memory: 4 ms to the card.
       finish 8, 20, horizon 2:    0 + 4 + 24 + 7.2 = 35.2     12 + 9.6 + 21.6 = 43.2     card

    Without the idle term task 0 would go to a core (26 against 23.6).
    """
    outcome = simulate(GammaMct(gamma_s_per_j=0.06), NODE, JOBS, floats=FLOATS)
    cards = ["card0"] * 4
    assert outcome.placed == ["card0", "card0", "core0", "core1", *cards, "core0", "card0"]
    assert simulate("eager", NODE, JOBS, floats=FLOATS).placed != outcome.placed


def test_it_places_as_starpu_dmda_does_at_any_price_of_a_joule() -> None:
    """On cores, where transfers play no part, with random lengths and dependences, idle term included."""
    rng, jobs = random.Random(11), []
    for i in range(40):
        seconds = {"big": rng.uniform(2e-3, 6e-3), "middle": rng.uniform(4e-3, 12e-3)}
        seconds["little"] = rng.uniform(6e-3, 20e-3)
        costs = {
            name: (s, s * (CLASSES.watts[name][1] - CLASSES.watts[name][0])) for name, s in seconds.items()
        }
        jobs.append(Job(costs, tuple(rng.sample(range(i), 2)) if i >= 12 else ()))
    placed = set()
    for gamma_s_per_j in (0.0, 0.02, 1.0):
        environment = {
            "STARPU_SCHED_ALPHA": "1.0",
            "STARPU_SCHED_BETA": "1.0",
            "STARPU_SCHED_GAMMA": str(1e6 * gamma_s_per_j),
            "STARPU_IDLE_POWER": str(CLASSES.idle_w),
        }
        dmda = simulate("dmda", CLASSES, jobs, environment=environment).placed
        assert simulate(GammaMct(gamma_s_per_j=gamma_s_per_j), CLASSES, jobs).placed == dmda
        placed.add(tuple(dmda))
    assert len(placed) == 3, "the price changed nothing, so this compares little"


@pytest.mark.parametrize(
    ("alpha", "beta", "worker"), [(1.0, 2.0, "card0"), (1.0, 10.0, "core0"), (0.0, 2.0, "core0")]
)
def test_alpha_weighs_lateness_and_beta_transfers(alpha: float, beta: float, worker: str) -> None:
    """Task 0 above: 31.2 + 2 beta on the card, 33.6 + 14 alpha on a core."""
    policy = GammaMct(alpha=alpha, beta=beta, gamma_s_per_j=0.06)
    assert simulate(policy, NODE, JOBS[:1], floats=FLOATS).placed == [worker]


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma_s_per_j"])
def test_a_parameter_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be a number at least 0, got -0.5$"):
        GammaMct(**{name: -0.5})
