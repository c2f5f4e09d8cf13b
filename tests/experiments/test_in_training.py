"""What a trace says of lengths and of the runtime around them, set beside sums by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from dahl.starpu import TRACE
from experiments.in_training import (
    InTraining,
    around_tasks,
    as_in_training,
    lengths,
    sigma_of,
    usual_mean,
    with_in_training,
)

US = 1e-6


def trace(*tasks: tuple[int, int, float, float, float, float]) -> np.ndarray:
    """Records of (worker, footprint, submitted, ready, start, end), times in microseconds."""
    records = np.zeros(len(tasks), TRACE)
    for name, values in zip(
        ("worker", "footprint", "submit_s", "ready_s", "start_s", "end_s"),
        zip(*tasks, strict=True),
        strict=True,
    ):
        records[name] = np.array(values) * (US if name.endswith("_s") else 1)
    return records


# Worker 0: three tasks that wait for it, 2 and 4 us apart. Worker 1: 50 us without work, then woken within 20 us.
WAITING = trace(
    (0, 0, 0, 0, 10, 20),
    (0, 0, 1, 1, 22, 32),
    (0, 1, 2, 2, 36, 66),
    (1, 0, 3, 3, 10, 20),
    (1, 0, 4, 70, 90, 100),
)


def test_gaps_are_those_of_workers_that_had_a_task_waiting_by_kind_of_task() -> None:
    around = around_tasks(WAITING)
    assert around.gap_s == pytest.approx(3 * US), "2 us before a task of one kind, 4 before one of the other"
    assert (around.wakes, around.wake_s) == (1, pytest.approx(20 * US))
    assert around.submit_s == pytest.approx(US)
    assert around.after_s == pytest.approx(4 * US), "ready at 70, when the last task had ended at 66"


def test_a_task_that_is_ready_just_after_its_worker_is_free_woke_nobody() -> None:
    around = around_tasks(trace((0, 0, 0, 0, 0, 10), (0, 0, 0, 13, 15, 25)))
    assert (around.gap_s, around.wakes) == (pytest.approx(5 * US), 0)
    assert math.isnan(around.wake_s)
    assert around.after_s == pytest.approx(3 * US)


def test_lengths_are_means_by_kind_without_what_was_interrupted() -> None:
    seconds, counts = lengths(WAITING, ["short", "long", "never ran"])
    assert seconds == {"short": pytest.approx(10 * US), "long": pytest.approx(30 * US)}
    assert counts == {"short": 4, "long": 1}
    assert usual_mean(np.array([1.0, 2.0, 3.0, 3000.0])) == pytest.approx(2.0)
    assert math.isnan(usual_mean(np.empty(0)))


def test_sigma_is_how_much_tasks_of_one_kind_vary_and_not_kinds_among_each_other() -> None:
    rng = np.random.default_rng(0)
    ends = np.concatenate([1e-3 * np.exp(0.2 * rng.standard_normal(4000)), np.full(10, 5.0)])
    tasks = np.zeros(ends.size, TRACE)
    tasks["end_s"], tasks["footprint"][4000:] = ends, 1
    assert sigma_of(tasks[:4000]) == pytest.approx(0.2, rel=0.05)
    assert sigma_of(tasks) < 0.1, "the other kind, which takes most of the time, never varies"


ROW = InTraining(
    model={"_target_": "dahl.models.basic_cnn", "filters": 4},
    batch_size=64,
    tile=16,
    fused=False,
    workers=2,
    worker_class="cpu",
    kernels="abc",
    scheduler="eager",
    tasks=10,
    seconds={"conv2d/16": 2e-5},
    counts={"conv2d/16": 10},
    sigma=0.1,
    around={"gap_s": 3e-6, "after_s": 1e-6, "wake_s": None, "wakes": 0, "submit_s": 2e-6},
)


def test_a_second_measurement_takes_the_place_of_the_first_and_of_no_other() -> None:
    record = {}
    for row in (ROW, replace(ROW, scheduler="dmda"), replace(ROW, tile=64), replace(ROW, tasks=20)):
        record = with_in_training(record, row)
    found = [as_in_training(row) for row in record["in_training"]]
    assert [(row.scheduler, row.tile, row.tasks) for row in found] == [
        ("dmda", 16, 10),
        ("eager", 64, 10),
        ("eager", 16, 20),
    ]
