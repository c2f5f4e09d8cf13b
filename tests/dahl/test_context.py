"""Submitting operations: tasks, checks, recorded graphs, costs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dahl import ops, starpu
from dahl.context import Context
from dahl.costs import CostModel, MeasuredCosts, Rates, RooflineCosts
from dahl.ops import ShapeError
from dahl.starpu import Step

WORKERS = min(2, len(os.sched_getaffinity(0)))


@pytest.fixture
def context() -> Iterator[Context]:
    with starpu.Runtime(cpu_workers=WORKERS) as runtime:
        yield Context(runtime)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def tasks(context: Context) -> list[tuple[str, int]]:
    """Operation and tag of every task since the last call, in the order of submission."""
    context.runtime.wait_all()
    trace = np.sort(context.runtime.take_trace(), order="task")
    names = context.codelet_names()
    return [(names[row["codelet"]], int(row["tag"])) for row in trace]


# ---- tasks ----


def test_each_tile_is_a_task_and_an_operand_of_one_tile_is_shared(context: Context) -> None:
    x, w = context.tensor(numbers(7, 4), tile=3), context.tensor(numbers(5, 4, seed=1))
    y = context.tensor((7, 5), tile=3)
    context.submit(ops.LINEAR, x, w, y)
    np.testing.assert_allclose(y.numpy(), numbers(7, 4) @ numbers(5, 4, seed=1).T, rtol=1e-5, atol=1e-6)
    assert tasks(context) == [("linear", 0), ("linear", 1), ("linear", 2)]


def test_a_repeated_operand_gives_all_of_its_tiles_to_one_task(context: Context) -> None:
    parts, total = context.per_tile((3,), 20), context.tensor((3,))
    parts.write(numbers(20, 3))
    context.submit(ops.GRADIENT_SUM[1], total, parts)
    np.testing.assert_allclose(total.numpy(), numbers(20, 3).astype(np.float64).sum(axis=0), rtol=1e-5)
    assert tasks(context) == [("gradient_sum_1d", 0)]


def test_a_list_gives_each_task_a_value_of_its_own(context: Context) -> None:
    logits, labels = numbers(6, 3), np.array([0, 1, 2, 0, 1, 2], np.int32)
    gradient = context.tensor((6, 3), tile=2)
    operands = (context.tensor(logits, tile=2), context.tensor(labels, tile=2), gradient)
    context.submit(
        ops.SOFTMAX_CROSS_ENTROPY, *operands, context.per_tile((1,), 3, dtype=np.float64), scale=[1, 2, 3]
    )
    exact = np.exp(logits.astype(np.float64))
    exact = exact / exact.sum(axis=1, keepdims=True) - np.eye(3)[labels]
    np.testing.assert_allclose(gradient.numpy(), exact * [[1], [1], [2], [2], [3], [3]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recorded", [False, True])
def test_under_prio_the_tasks_that_wait_run_by_their_priority(recorded: bool) -> None:
    with starpu.Runtime(cpu_workers=1, scheduler="prio") as runtime:
        context = Context(runtime)
        tensors = [context.tensor(np.zeros((size, 1), np.float32)) for size in (1, 2, 3, 4)]
        runtime.pause()
        with context.record() if recorded else nullcontext() as graph:
            for tensor, priority in zip(tensors, (1, 3, -2, 2), strict=True):
                context.submit(ops.RELU_IN_PLACE[2], tensor, priority=priority)
        if graph:
            graph.submit()
        runtime.resume()
        runtime.wait_all()
        trace = np.sort(runtime.take_trace(), order="start_s")
        sizes = [context.footprints[footprint][-3] for footprint in trace["footprint"]]
    assert sizes == ["2", "4", "1", "3"]


def test_tasks_are_numbered_in_the_order_of_submission(context: Context) -> None:
    x = context.tensor(np.zeros((6, 1), np.float32), tile=2)
    for _ in range(2):
        context.submit(ops.RELU_IN_PLACE[2], x)
    context.runtime.wait_all()
    trace = np.sort(context.runtime.take_trace(), order="task")
    assert list(trace["task"]) == list(range(6))
    assert list(trace["tag"]) == [0, 1, 2, 0, 1, 2]


# ---- mistakes ----


def test_the_number_of_tensors_is_checked(context: Context) -> None:
    with pytest.raises(ShapeError, match=r"relu_2d takes 2 tensors \(x, y\), got 1"):
        context.submit(ops.RELU[2], context.tensor((2, 2)))
    with pytest.raises(ShapeError, match=r"relu_2d takes 2 tensors .*, got 3"):
        context.submit(ops.RELU[2], *[context.tensor((2, 2)) for _ in range(3)])


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8, np.float16])
def test_the_dtype_is_checked(context: Context, dtype: Any) -> None:
    with pytest.raises(ShapeError, match=f"relu_2d: x must be float32, got {np.dtype(dtype)}"):
        context.submit(ops.RELU[2], context.tensor(np.zeros((2, 2), dtype)), context.tensor((2, 2)))


def test_the_number_of_dimensions_is_checked(context: Context) -> None:
    with pytest.raises(ShapeError, match=r"relu_2d: x must have 2 dimensions, got \(2, 2, 1\)"):
        context.submit(ops.RELU[2], context.tensor((2, 2, 1)), context.tensor((2, 2)))
    with pytest.raises(ShapeError, match=r"gradient_sum_1d: items must have 1 dimensions, got \(2, 2\)"):
        context.submit(ops.GRADIENT_SUM[1], context.tensor((2,)), context.per_tile((2, 2), 3))


def test_shapes_that_do_not_fit_are_named(context: Context) -> None:
    with pytest.raises(ShapeError, match="linear: w is 5x3 where x needs 5x4"):
        context.submit(ops.LINEAR, context.tensor((2, 4)), context.tensor((5, 3)), context.tensor((2, 5)))


def test_tiles_that_do_not_match_are_refused(context: Context) -> None:
    with pytest.raises(ShapeError, match="relu_2d: y has 2 tiles where others have 4"):
        context.submit(ops.RELU[2], context.tensor((8, 2), tile=2), context.tensor((8, 2), tile=4))
    with pytest.raises(ShapeError, match="relu_2d: y is 2x2 where x needs 3x2"):
        context.submit(ops.RELU[2], context.tensor((8, 2), tile=3), context.tensor((6, 2), tile=2))


def test_an_output_that_every_task_would_overwrite_is_refused(context: Context) -> None:
    dy, db = context.tensor((6, 3), tile=2), context.tensor((3,))
    with pytest.raises(
        ShapeError, match="bias_gradient_2d: db has one tile that 3 tasks would overwrite in turn"
    ):
        context.submit(ops.BIAS_GRADIENT_2D, dy, db)


def test_a_mistake_in_the_last_tile_leaves_no_task_behind(context: Context) -> None:
    x, y = context.tensor(numbers(8, 2), tile=3), context.tensor(np.full((7, 2), 5, np.float32), tile=3)
    with pytest.raises(ShapeError, match="relu_2d: y is 1x2 where x needs 2x2"):
        context.submit(ops.RELU[2], x, y)
    with context.record() as graph, pytest.raises(ShapeError):
        context.submit(ops.RELU[2], x, y)
    assert len(graph) == 0
    assert tasks(context) == []
    np.testing.assert_array_equal(y.numpy(), 5)


def test_scalars_are_checked_by_name_and_number(context: Context) -> None:
    w, v, g = (context.tensor(np.zeros(4, np.float32), tile=2) for _ in range(3))
    with pytest.raises(
        TypeError, match=r"sgd_1d takes the scalars \['learning_rate', 'momentum', 'weight_decay'\]"
    ):
        context.submit(ops.SGD[1], w, v, g)
    with pytest.raises(TypeError, match=r"got \['learning_rate', 'momentum', 'rate', 'weight_decay'\]"):
        context.submit(ops.SGD[1], w, v, g, learning_rate=0.1, rate=0.1)
    with pytest.raises(ValueError, match="sgd_1d: learning_rate has 3 values for 2 tasks"):
        context.submit(ops.SGD[1], w, v, g, learning_rate=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="sgd_1d: learning_rate has 1 values for 2 tasks"):
        context.submit(ops.SGD[1], w, v, g, learning_rate=[0.1])
    assert tasks(context) == []


def test_a_step_belongs_inside_record(context: Context) -> None:
    history, items = context.tensor((5,), dtype=np.float64), context.per_tile((1,), 2, dtype=np.float64)
    with pytest.raises(ValueError, match=r"record: a Step has a meaning only inside record\(\)"):
        context.submit(ops.RECORD, history, items, index=Step(0, 1))
    assert tasks(context) == []


def test_a_step_is_an_integer(context: Context) -> None:
    """A float's bits would be moved as if they were an integer."""
    w, v, g = (context.tensor(np.zeros(4, np.float32)) for _ in range(3))
    with (
        context.record(),
        pytest.raises(ValueError, match="sgd_1d: learning_rate is no integer, so it cannot be a Step"),
    ):
        context.submit(ops.SGD[1], w, v, g, learning_rate=Step(1, 1))


def test_two_operations_of_one_name_are_refused(context: Context) -> None:
    x = context.tensor(np.zeros((2, 2), np.float32))
    context.submit(ops.RELU_IN_PLACE[2], x)
    with pytest.raises(ValueError, match="two operations are called relu_in_place_2d"):
        context.submit(replace(ops.RELU_IN_PLACE[2], kind="gemm"), x)


def gather_an_image_that_is_not_there(runtime: starpu.Runtime) -> None:
    context = Context(runtime)
    images, labels = context.tensor(np.zeros((2, 1, 2, 2), np.uint8)), context.tensor(np.zeros(2, np.int32))
    order, one = context.tensor(np.array([0, 2])), context.tensor(np.ones(1, np.float32))
    out = context.tensor((2, 1, 2, 2)), context.tensor((2,), dtype=np.int32)
    context.submit(ops.GATHER, images, labels, order, one, one, *out, first=0)
    runtime.wait_all()


def test_a_kernel_that_raises_ends_the_run_with_its_error() -> None:
    runtime = starpu.Runtime(cpu_workers=1)
    with pytest.raises(starpu.KernelError, match=r"gather.*order names an image outside the data set"):
        runtime.run(gather_an_image_that_is_not_there)
    with starpu.Runtime(cpu_workers=1) as runtime:
        assert Context(runtime).tensor(numbers(2)).numpy().size == 2, "the next run starts clean"


# ---- recorded graphs ----


def network_values(context: Context, *, recorded: bool) -> list[np.ndarray]:
    """Three steps of a linear classifier, as one graph or operation by operation."""
    x, w = context.tensor(numbers(7, 4), tile=3), context.tensor(numbers(3, 4, seed=1))
    labels = context.tensor(np.array([0, 1, 2, 0, 1, 2, 0], np.int32), tile=3)
    y, dy, dw = context.tensor((7, 3), tile=3), context.tensor((7, 3), tile=3), context.tensor((3, 4))
    parts, velocity = context.per_tile((3, 4), 3), context.tensor(np.zeros((3, 4), np.float32))
    loss, history = context.per_tile((1,), 3, dtype=np.float64), context.tensor(np.zeros(5))

    def step(index: Any) -> None:
        context.submit(ops.LINEAR, x, w, y)
        context.submit(ops.SOFTMAX_CROSS_ENTROPY, y, labels, dy, loss, scale=1 / 7)
        context.submit(ops.RECORD, history, loss, index=index)
        context.submit(ops.LINEAR_BACKWARD_WEIGHT, x, dy, parts)
        context.submit(ops.GRADIENT_SUM[2], dw, parts)
        context.submit(ops.SGD[2], w, velocity, dw, learning_rate=0.5, momentum=0.9)

    if recorded:
        with context.record() as graph:
            step(Step(1, 1))
        assert len(graph) == 3 + 3 + 1 + 3 + 1 + 1
        for index in range(3):
            graph.submit(index)
    else:
        for index in range(3):
            step(1 + index)
    return [history.numpy(), w.numpy(), velocity.numpy(), y.numpy()]


def test_a_recorded_graph_does_bit_for_bit_what_immediate_submission_does(context: Context) -> None:
    immediate, recorded = (network_values(context, recorded=recorded) for recorded in (False, True))
    for one, other in zip(immediate, recorded, strict=True):
        np.testing.assert_array_equal(one, other)
    history = recorded[0]
    assert history[0] == history[4] == 0
    assert history[1] > history[2] > history[3] > 0, "each submission wrote at a place of its own"


def test_a_graph_is_recorded_in_one_piece(context: Context) -> None:
    x = context.tensor(numbers(2, 2))
    with (
        context.record(),
        pytest.raises(RuntimeError, match="a graph is being recorded already"),
        context.record(),
    ):
        pass
    with pytest.raises(KeyError), context.record():
        raise KeyError
    context.submit(ops.RELU_IN_PLACE[2], x)
    assert tasks(context) == [("relu_in_place_2d", 0)], "after the error, submission is immediate again"


# ---- costs ----


def trace_of(costs: CostModel | None, watts: bool) -> np.ndarray:
    """Records of ReLU on a tile of 4x10 and one of 3x10, then of a linear layer."""
    with starpu.Runtime(cpu_workers=1) as runtime:
        machine = starpu.MachineWatts(10.0, (starpu.WorkerWatts(1.0, 8.0),)) if watts else None
        context = Context(runtime, costs, machine)
        x, y = context.tensor(numbers(7, 10), tile=4), context.tensor((7, 10), tile=4)
        context.submit(ops.RELU[2], x, y)
        context.submit(ops.RELU[2], x, y)
        context.submit(
            ops.LINEAR, context.tensor(numbers(2, 3)), context.tensor(numbers(4, 3)), context.tensor((2, 4))
        )
        runtime.wait_all()
        keys = ["relu_2d/4x10/4x10", "relu_2d/3x10/3x10", "linear/2x3/4x3/2x4"]
        assert context.footprints == keys
        trace = np.sort(runtime.take_trace(), order="task")
    assert [keys[footprint] for footprint in trace["footprint"]] == [*keys[:2], *keys[:2], keys[2]]
    return trace


def test_each_task_carries_the_seconds_and_joules_of_its_own_shape() -> None:
    """Of 40 and 30 comparisons at 1 M/s; 7 W more than idle. The rate of linear layers is not given."""
    rates = Rates({"memory": 1e6}, bytes_per_s=1e9, launch_s=1e-6)
    trace = trace_of(RooflineCosts({"cpu": rates}), watts=True)
    expected = [41e-6, 31e-6, 41e-6, 31e-6, math.nan]
    np.testing.assert_allclose(trace["predicted_s"], expected, rtol=1e-12)
    np.testing.assert_allclose(trace["predicted_j"], 7 * np.array(expected), rtol=1e-12)


def test_what_was_not_measured_is_nan() -> None:
    trace = trace_of(MeasuredCosts({"cpu": {"relu_2d/3x10/3x10": 2e-6}}), watts=False)
    np.testing.assert_array_equal(trace["predicted_s"], [math.nan, 2e-6, math.nan, 2e-6, math.nan])
    assert np.isnan(trace["predicted_j"]).all(), "without watts no joules are known"


def test_measured_watts_of_a_kind_of_task_come_before_those_of_its_worker() -> None:
    """The worker draws 7 W above idle; one kind was measured at 20 W."""
    keys = ["relu_2d/3x10/3x10", "relu_2d/4x10/4x10"]
    costs = MeasuredCosts({"cpu": dict.fromkeys(keys, 2e-6)}, {"cpu": {keys[0]: 20.0}})
    trace = trace_of(costs, watts=True)
    np.testing.assert_allclose(trace["predicted_j"][:4], [14e-6, 40e-6, 14e-6, 40e-6], rtol=1e-12)


def test_without_a_cost_model_nothing_is_expected() -> None:
    trace = trace_of(None, watts=True)
    assert np.isnan(trace["predicted_s"]).all()
    assert np.isnan(trace["predicted_j"]).all()


def test_windows_that_make_the_same_shapes_have_costs_of_their_own() -> None:
    """4x4 -> 2x2 by windows of 2 every 2 (4 comparisons a pixel) and of 3 every 1 (9 comparisons)."""
    rates = Rates({"memory": 1e6}, bytes_per_s=1e12, launch_s=1e-6)
    with starpu.Runtime(cpu_workers=1) as runtime:
        context = Context(runtime, RooflineCosts({"cpu": rates}))
        x, y = context.tensor(numbers(1, 1, 4, 4)), context.tensor((1, 1, 2, 2))
        argmax = context.tensor((1, 1, 2, 2), dtype=np.uint8)
        context.submit(ops.MAX_POOL2D, x, y, argmax)
        context.submit(ops.MAX_POOL2D, x, y, argmax, size=3, stride=1)
        runtime.wait_all()
        trace = np.sort(runtime.take_trace(), order="task")
    np.testing.assert_allclose(trace["predicted_s"], [17e-6, 37e-6], rtol=1e-12)
