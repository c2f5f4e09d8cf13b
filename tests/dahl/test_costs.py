"""Expected seconds and joules: closed forms, tables, and their keys."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dahl import ops
from dahl.costs import MeasuredCosts, Rates, RooflineCosts, cost_key, energy_j
from dahl.ops import Operation
from dahl.starpu import MachineWatts, Worker, WorkerWatts

CORE = Worker(0, "CPU 0", "cpu", 0, 0, "core")
GPU = Worker(1, "CUDA 0", "cuda", 0, 1, "gpu")
LINEAR = {"x": (8, 100), "w": (20, 100), "y": (8, 20)}
RELU = {"x": (8, 100), "y": (8, 100)}
MODEL = RooflineCosts(
    {
        "core": Rates({"gemm": 1e9, "memory": 1e9}, bytes_per_s=1e10, launch_s=1e-6),
        "gpu": Rates({"gemm": 1e12, "memory": 1e12}, bytes_per_s=1e11, launch_s=5e-6),
    }
)


def length_s(worker: Worker, operation: Operation, shapes: dict[str, Any]) -> float:
    return MODEL.length_s(worker, operation, shapes, {})


def test_a_task_bound_by_arithmetic_takes_its_flops() -> None:
    """2 * 8 * 100 * 20 FLOP at 1 GFLOP/s: 32 us, and 1 us to launch; its 11,840 bytes take 1.2 us."""
    assert length_s(CORE, ops.LINEAR, LINEAR) == pytest.approx(33e-6, rel=1e-12)


def test_a_task_bound_by_memory_takes_its_bytes() -> None:
    """4 * (8 * 100 + 20 * 100 + 8 * 20) bytes at 100 GB/s: 0.1184 us; 32,000 FLOP take 0.032 us."""
    assert length_s(GPU, ops.LINEAR, LINEAR) == pytest.approx(5e-6 + 0.1184e-6, rel=1e-12)


def test_each_kind_of_kernel_has_a_rate_of_its_own() -> None:
    """800 comparisons at 1 G/s: 0.8 us; reading and writing 800 floats at 10 GB/s: 0.64 us."""
    assert length_s(CORE, ops.RELU[2], RELU) == pytest.approx(1.8e-6, rel=1e-12)


def test_an_unknown_worker_class_or_kind_is_nan() -> None:
    other = Worker(2, "CPU 1", "cpu", 1, 0, "little core")
    assert math.isnan(length_s(other, ops.LINEAR, LINEAR))
    shapes = {"x": (2, 1, 5, 5), "w": (4, 1, 3, 3), "y": (2, 4, 3, 3)}
    assert math.isnan(MODEL.length_s(CORE, ops.CONV2D, shapes, {"stride": 1, "padding": 0}))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_impossible_rates_are_refused_by_name(bad: float) -> None:
    with pytest.raises(ValueError, match="the rate conv must be above 0"):
        Rates({"gemm": 1.0, "conv": bad}, 1.0, 1.0)
    with pytest.raises(ValueError, match="the rate bytes_per_s must be above 0"):
        Rates({"gemm": 1.0}, bad, 1.0)
    with pytest.raises(ValueError, match="launch_s must be above 0"):
        Rates({"gemm": 1.0}, 1.0, bad)


def test_measured_seconds_are_found_by_worker_class_and_key() -> None:
    measured = MeasuredCosts({"core": {"linear/8x100/20x100/8x20": 3.25e-5}})
    assert measured.length_s(CORE, ops.LINEAR, LINEAR, {}) == 3.25e-5
    assert math.isnan(measured.length_s(GPU, ops.LINEAR, LINEAR, {}))
    assert math.isnan(measured.length_s(CORE, ops.LINEAR, {**LINEAR, "x": (7, 100), "y": (7, 20)}, {}))
    assert math.isnan(MeasuredCosts().length_s(CORE, ops.LINEAR, LINEAR, {}))


def test_joules_are_those_above_idle() -> None:
    watts = MachineWatts(20.0, (WorkerWatts(2.0, 10.0), WorkerWatts(15.0, 115.0)))
    assert energy_j(watts, CORE, 0.5) == 4.0
    assert energy_j(watts, GPU, 0.01) == 1.0
    assert math.isnan(energy_j(watts, CORE, math.nan))
    assert math.isnan(energy_j(None, CORE, 0.5))
    assert math.isnan(energy_j(MachineWatts(20.0, (WorkerWatts(math.nan, 10.0),)), CORE, 0.5))


CONV = {"x": (16, 1, 5, 5), "w": (4, 1, 3, 3), "y": (16, 4, 3, 3)}
POOL = {"x": (2, 1, 4, 4), "y": (2, 1, 2, 2), "argmax": (2, 1, 2, 2)}


@pytest.mark.parametrize(
    ("operation", "shapes", "scalars", "key"),
    [
        (ops.LINEAR, LINEAR, {}, "linear/8x100/20x100/8x20"),
        (ops.RELU[2], RELU, {}, "relu_2d/8x100/8x100"),
        (
            ops.GRADIENT_SUM[4],
            {"total": (4, 1, 3, 3), "items": ((4, 1, 3, 3),) * 8},
            {},
            "gradient_sum_4d/4x1x3x3/8*4x1x3x3",
        ),
        (ops.CONV2D, CONV, {"stride": 1, "padding": 0}, "conv2d/16x1x5x5/4x1x3x3/16x4x3x3"),
        (
            ops.CONV2D,
            CONV,
            {"stride": 2, "padding": 1},
            "conv2d/16x1x5x5/4x1x3x3/16x4x3x3/stride=2/padding=1",
        ),
        (ops.MAX_POOL2D, POOL, {"size": 2, "stride": 2}, "max_pool2d/2x1x4x4/2x1x2x2/2x1x2x2"),
        (
            ops.MAX_POOL2D,
            POOL,
            {"size": 3, "stride": 1},
            "max_pool2d/2x1x4x4/2x1x2x2/2x1x2x2/size=3/stride=1",
        ),
        (ops.RECORD, {"history": (90,), "items": ((1,),) * 4}, {"index": 7}, "record/90/4*1"),
        (
            ops.SGD[1],
            {"w": (10,), "v": (10,), "g": (10,)},
            {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.1},
            "sgd_1d/10/10/10",
        ),
    ],
)
def test_keys_of_measurements_stay_as_they_are_on_disk(
    operation: Operation, shapes: dict[str, Any], scalars: dict[str, Any], key: str
) -> None:
    assert cost_key(operation, shapes, scalars) == key


def test_measured_watts_are_found_by_worker_class_and_key_and_others_are_nan() -> None:
    measured = MeasuredCosts(net_w={"core": {"linear/8x100/20x100/8x20": 7.5}})
    assert measured.watts(CORE, ops.LINEAR, LINEAR, {}) == 7.5
    assert math.isnan(measured.watts(GPU, ops.LINEAR, LINEAR, {}))
    assert math.isnan(measured.watts(CORE, ops.RELU[2], RELU, {}))
    assert math.isnan(MODEL.watts(CORE, ops.LINEAR, LINEAR, {}))
