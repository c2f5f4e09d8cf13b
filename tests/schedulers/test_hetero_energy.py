"""HeteroEnergy: the ends of the queue, the guard at the end, and a schedule worked out by hand."""

from __future__ import annotations

import math

import pytest

from schedulers import HeteroEnergy
from tests.schedulers.records import empty_memory, kinds_of, system_of, workers_of
from tests.schedulers.schedules import Node, jobs_of, simulate

NET = system_of(base_w=0.0, idle_w=0.0)
"""A machine that draws nothing at rest, so that joules are those of the tasks."""

NODE = Node("trio", ("fast", "slow", "slow"), {"slow": (1, 6), "fast": (4, 34)})
PLAIN = HeteroEnergy(max_ratio=math.inf)
"""HeteroPrio with the guard."""
BY_HAND = ["fast", "slow", "slow", "fast", "fast", "fast", "fast"]
JOBS = jobs_of(
    {"A": {"slow": (8, 40), "fast": (1, 20)}, "B": {"slow": (4, 12), "fast": (2, 48)}},
    [(kind, ()) for kind in "ABBBAAB"],
)


def test_the_schedule_is_the_one_worked_out_by_hand() -> None:
    """Of the machine's 16 W at rest a third goes with each worker. In mJ A takes 40 + 8 * 16 / 3 = 82.7 on slow and
    25.3 on fast, B 33.3 and 58.7. e_slow / e_fast is 3.3 for A and 0.57 for B: the fast core prefers A, the slow ones
    B. In ms:

    0  A0 alone. A slow core would end it at 8, the fast one at 1: slow leaves it (8 > 0 + 1), fast takes it.
       B1: the fast core would be done with it at 1 + 2 = 3: slow leaves it (4 > 3).
       B2: the fast core would be done with both at 1 + 2 * 2 = 5: a slow core takes the older, B1 (4 <= 5), the
       other one leaves B2 (4 > 3).
       B3: the same; the other slow core takes B2. B3, A4, A5, B6 wait: every core is busy.
    1  fast is free: A4 and not the older B3, as its ratio is larger.
    2  fast: A5.
    3  Only B3 and B6 are left. fast: B3, the older.
    4  The slow cores are free. B6 would take them until 8; fast would be done at 5 + 2 = 7 (4 > 1 + 2): left.
    5  fast: B6, until 7.
    """
    done = simulate(PLAIN, NODE, JOBS)
    assert done.classes == BY_HAND
    assert {done.placed[1], done.placed[2]} == {"slow0", "slow1"}
    order = sorted((0, 3, 4, 5, 6), key=lambda task: done.start_ms[task])
    assert order == [0, 4, 5, 3, 6]
    assert max(done.end_ms) == pytest.approx(7, abs=0.05)


def test_its_schedule_is_not_that_of_eager() -> None:
    assert simulate("eager", NODE, JOBS).classes != BY_HAND


def test_without_a_guard_the_slow_class_ends_later() -> None:
    """A0 comes alone, and whichever worker is asked first takes it: plain HeteroPrio before spoliation.

    At 4 ms a slow core is free and B is still waiting, which it then takes until 8 ms.
    """
    done = simulate(HeteroEnergy(end_slack=math.inf, max_ratio=math.inf), NODE, JOBS)
    assert max(done.end_ms) == pytest.approx(8, abs=0.05)


def test_a_class_takes_first_what_it_does_cheapest_beside_the_others() -> None:
    """Ratios for class 0 are 1/2, 3, 1; for class 1 they are the inverse. Nothing is slower anywhere."""
    workers = workers_of([0, 1], [[1.0, 1.0]] * 3, [[4.0, 2.0], [1.0, 3.0], [2.0, 2.0]])
    for worker, row in ((0, 1), (1, 0)):
        picked = PLAIN.pick(worker, kinds_of([1, 1, 1]), workers, NET, empty_memory())
        assert picked == row
    assert workers[:, 0].score.tolist() == [0.5, 3.0, 1.0]


def test_a_slow_worker_answers_for_its_share_of_the_idle_watts() -> None:
    """1 J for 4 s on class 0, 3 J for 1 s on class 1. 12 W at rest are 6 W for each: 25 J and 9 J."""
    workers = workers_of([0, 1], [[4.0, 1.0]], [[1.0, 3.0]])
    picked = [HeteroEnergy().pick(w, kinds_of([1]), workers, system_of(), empty_memory()) for w in (0, 1)]
    assert picked == [-1, 0]
    assert workers[0, 1].score == pytest.approx(25 / 9)
    picked = [HeteroEnergy().pick(w, kinds_of([1]), workers, NET, empty_memory()) for w in (0, 1)]
    assert picked == [0, -1]


def test_on_one_class_it_is_first_in_first_out() -> None:
    ready = kinds_of([1, 1, 1])
    ready["sequence"] = [7, 3, 5]
    workers = workers_of([0, 0], [[1.0], [5.0], [0.1]], [[1.0], [2.0], [3.0]])
    assert HeteroEnergy().pick(1, ready, workers, NET, empty_memory()) == 1


def test_what_no_other_class_can_run_comes_first() -> None:
    workers = workers_of([0, 1], [[1.0, 1.0], [1.0, math.nan]], [[1.0, 9.0], [1.0, math.nan]])
    assert HeteroEnergy().pick(0, kinds_of([1, 1]), workers, NET, empty_memory()) == 1


@pytest.mark.parametrize(("count", "picked"), [(3, -1), (4, 0)])
def test_a_slow_worker_waits_for_as_long_as_the_fast_class_is_done_sooner(count: int, picked: int) -> None:
    """4 s here. Two fast workers of 2 s a task, one of which is busy for 1 s, take 1/2 + count * 2 / 2 s:
    with three tasks 3.5 s, with four 4.5 s."""
    workers = workers_of([0, 1, 1], [[4.0, 2.0]], [[1.0, 1.0]])
    workers["available_s"][0] = [0.0, 1.0, 0.0]
    assert HeteroEnergy().pick(0, kinds_of([count]), workers, NET, empty_memory()) == picked
    assert HeteroEnergy(end_slack=2.0).pick(0, kinds_of([count]), workers, NET, empty_memory()) == 0
    assert HeteroEnergy(end_slack=0.0).pick(0, kinds_of([99]), workers, NET, empty_memory()) == -1
    assert HeteroEnergy(end_slack=0.0).pick(1, kinds_of([1]), workers, NET, empty_memory()) == 0


def test_where_the_best_kind_would_end_too_late_the_next_is_taken() -> None:
    """Kind 0 suits class 0 best but takes it 10 s, and class 1 0.1 s; kind 1 is as fast on both."""
    workers = workers_of([0, 1], [[10.0, 0.1], [1.0, 1.0]], [[1.0, 5.0], [1.0, 1.0]])
    assert PLAIN.pick(0, kinds_of([1, 1]), workers, NET, empty_memory()) == 1


@pytest.mark.parametrize(("max_ratio", "dear", "cheap"), [(2.9, -1, 0), (3.0, 0, -1)])
def test_a_worker_declines_what_takes_too_many_joules_and_is_then_no_faster_class_to_wait_for(
    max_ratio: float, dear: int, cheap: int
) -> None:
    """Class 0 takes 3 J and 1 s, class 1 takes 1 J and 9 s. Where 3 J are too many, class 1 runs the task although
    it ends it later; where they are not, class 1 leaves it to class 0."""
    policy, workers = HeteroEnergy(max_ratio=max_ratio), workers_of([0, 1], [[1.0, 9.0]], [[3.0, 1.0]])
    picked = [policy.pick(w, kinds_of([1]), workers, NET, empty_memory()) for w in (0, 1)]
    assert picked == [dear, cheap]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"end_slack": -0.1}, "end_slack must be a number at least 0, got -0.1"),
        ({"end_slack": math.nan}, "got nan"),
        ({"max_ratio": 0.9}, "max_ratio must be a number at least 1, got 0.9"),
        ({"max_ratio": math.nan}, "got nan"),
        ({"max_ratio": ".inf"}, "got '.inf'"),
    ],
)
def test_a_parameter_out_of_range_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeteroEnergy(**given)
