import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy import PowerModel, WorkerPower, activity_energy, break_down

CPU = WorkerPower(idle_w=1.0, polling_w=4.0, busy_w=10.0, busy_w_by_codelet={"conv2d": 20.0})
GPU = WorkerPower(idle_w=20.0, polling_w=25.0, busy_w=200.0, channel="gpu")
NODE = PowerModel(base_w=50.0, workers=(CPU, CPU, GPU), stays_awake_s=0.25)


def tasks(*rows: tuple[int, str, float, float, float]) -> np.ndarray:
    fields = [("worker", "i4"), ("codelet", "U8"), ("ready_s", "f8"), ("start_s", "f8"), ("end_s", "f8")]
    return np.array(list(rows), dtype=fields)


def test_each_stretch_of_a_worker_goes_to_one_part_by_hand() -> None:
    ran = tasks(
        (0, "conv2d", 1.0, 1.5, 2.0),  # ready for half a second while worker 0 had nothing
        (1, "relu", 1.25, 1.25, 2.0),
        (2, "relu", 1.5, 1.75, 3.0),  # its data take 0.25 s to the card
        (2, "relu", 2.0, 3.0, 3.5),  # ready while the card was busy: no wait
    )
    found = break_down(NODE, ran, 0.0, 5.0, None)
    assert found.compute_j == pytest.approx(0.5 * 20 + 0.75 * 10 + 1.75 * 200)
    # Nothing runs from 0 to 1.25 s and from 3.5 s on: worker 0 is awake for 0.25 s of each.
    assert found.polling_j == pytest.approx(2 * 0.25 * 4)
    assert found.scheduling_j == pytest.approx(0.5 * 1)
    assert found.transfers_j == pytest.approx(0.25 * 20)
    assert found.sleep_j == pytest.approx((5 - 0.5 - 0.5 - 0.5) * 1 + (5 - 0.75) * 1 + (5 - 1.75 - 0.25) * 20)
    assert found.base_j == pytest.approx(5 * 50)
    assert (found.remainder_j, found.total_j, found.quality) == (None, None, "modelled")


def test_a_worker_that_polls_while_its_next_task_is_ready_counts_once() -> None:
    """The task is ready from 0.1 s on and starts at 0.5 s; until 0.25 s the worker still polls."""
    found = break_down(NODE, tasks((0, "relu", 0.1, 0.5, 1.0)), 0.0, 1.0, None)
    assert found.polling_j == pytest.approx(0.25 * 4)
    assert found.scheduling_j == pytest.approx(0.25 * 1)
    assert found.sleep_j == pytest.approx(1 * 1 + 1 * 20)


def test_what_a_counter_shows_beyond_the_model_is_the_remainder() -> None:
    found = break_down(NODE, tasks((0, "relu", 0.0, 0.0, 1.0)), 0.0, 1.0, 100.0)
    assert found.remainder_j == pytest.approx(100.0 - (10 + 1 + 20 + 50))
    assert break_down(NODE, tasks(), 0.0, 1.0, 10.0).remainder_j == pytest.approx(10.0 - 72 - 0.25 * 3)


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.floats(0, 1), st.floats(0, 0.3), st.floats(0, 0.5)), max_size=12
    ),
    total_j=st.floats(-1e3, 1e6),
)
def test_parts_and_remainder_sum_up_to_the_total_and_the_parts_to_the_model(
    rows: list[tuple[int, float, float, float]], total_j: float
) -> None:
    free_s = [0.0, 0.0, 0.0]
    ran = []
    for worker, after_s, wait_s, length_s in rows:
        start_s = free_s[worker] + after_s
        free_s[worker] = start_s + length_s
        ran.append((worker, "relu", start_s - wait_s, start_s, free_s[worker]))
    end_s = max(free_s) + 0.5
    found = break_down(NODE, tasks(*ran), 0.0, end_s, total_j)
    assert all(part >= -1e-9 for part in found.parts_j.values())
    modelled_j = sum(energy.gross_j for energy in activity_energy(NODE, tasks(*ran), 0.0, end_s).values())
    assert math.fsum(found.parts_j.values()) == pytest.approx(modelled_j, rel=1e-12)
    assert found.remainder_j is not None
    assert math.fsum([*found.parts_j.values(), found.remainder_j]) == pytest.approx(
        total_j, rel=1e-12, abs=1e-9
    )
