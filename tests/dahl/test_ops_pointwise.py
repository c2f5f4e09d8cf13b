"""Bias, ReLU, gradient sum, SGD, record: one pass over memory each."""

import numpy as np
import pytest

from dahl.ops import (
    BIAS_2D,
    BIAS_4D,
    BIAS_GRADIENT_2D,
    BIAS_GRADIENT_4D,
    GRADIENT_SUM,
    RECORD,
    RECORD_COUNT,
    RELU,
    RELU_BACKWARD,
    RELU_BACKWARD_IN_PLACE,
    RELU_IN_PLACE,
    SGD,
    ShapeError,
)

from .operation_checks import assert_kernel_matches_reference, central_difference, outputs

SHAPES_4D = [(1, 1, 1, 1), (3, 4, 5, 7), (16, 4, 26, 26), (2, 33, 1, 9)]
SHAPES_2D = [(1, 1), (3, 10), (16, 129)]
SHAPES = [*SHAPES_2D, *SHAPES_4D]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bias_and_its_gradient_agree_with_float64(shape):
    forward, backward = (BIAS_4D, BIAS_GRADIENT_4D) if len(shape) == 4 else (BIAS_2D, BIAS_GRADIENT_2D)
    y, b = draw(*shape), draw(shape[1], seed=1)
    assert_kernel_matches_reference(forward, {"y": y, "b": b}, rtol=1e-6, atol=1e-6)
    assert_kernel_matches_reference(backward, {"dy": y, "db": b})


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2, 2)], ids=str)
def test_the_bias_gradient_is_a_central_difference(shape):
    forward, backward = (BIAS_4D, BIAS_GRADIENT_4D) if len(shape) == 4 else (BIAS_2D, BIAS_GRADIENT_2D)
    y, dy, b = (draw(*s, seed=i).astype(np.float64) for i, s in enumerate((shape, shape, shape[1:2])))
    expected = central_difference(
        lambda value: (forward.reference({"y": y, "b": value}, {})["y"] * dy).sum(), b
    )
    np.testing.assert_allclose(backward.reference({"dy": dy, "db": b}, {})["db"], expected, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_relu_is_exact_in_both_directions_and_in_place(shape):
    x, dy = draw(*shape), draw(*shape, seed=1)
    x.flat[::3] = 0.0
    y, dx = np.where(x > 0, x, 0), np.where(x > 0, dy, 0)
    ndim = len(shape)
    np.testing.assert_array_equal(outputs(RELU[ndim], {"x": x, "y": x})["y"], y)
    np.testing.assert_array_equal(outputs(RELU_IN_PLACE[ndim], {"y": x})["y"], y)
    np.testing.assert_array_equal(outputs(RELU_BACKWARD[ndim], {"y": y, "dy": dy, "dx": dy})["dx"], dx)
    np.testing.assert_array_equal(outputs(RELU_BACKWARD_IN_PLACE[ndim], {"y": y, "dy": dy})["dy"], dx)
    for operation, named in (
        (RELU[ndim], {"x": x, "y": y}),
        (RELU_IN_PLACE[ndim], {"y": x}),
        (RELU_BACKWARD[ndim], {"y": y, "dy": dy, "dx": dx}),
        (RELU_BACKWARD_IN_PLACE[ndim], {"y": y, "dy": dy}),
    ):
        assert_kernel_matches_reference(operation, named, rtol=0, atol=0)


def test_relu_keeps_a_nan():
    x = np.array([[np.nan, -1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(outputs(RELU[2], {"x": x, "y": x})["y"], [[np.nan, 0.0, 2.0]])
    np.testing.assert_array_equal(outputs(RELU_IN_PLACE[2], {"y": x})["y"], [[np.nan, 0.0, 2.0]])
    y, dy = np.array([[1.0, 0.0, 1.0]], np.float32), np.array([[np.nan, 3.0, 4.0]], np.float32)
    np.testing.assert_array_equal(
        outputs(RELU_BACKWARD_IN_PLACE[2], {"y": y, "dy": dy})["dy"], [[np.nan, 0.0, 4.0]]
    )


@pytest.mark.parametrize("shape", [(1,), (7,), (10, 13), (4, 3, 3, 3)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_gradients_add_up_one_by_one_in_the_order_of_the_items(shape, count):
    items = [draw(*shape, seed=seed) * np.float32(10.0**seed) for seed in range(count)]
    expected = items[0].copy()
    for item in items[1:]:
        expected += item
    operation = GRADIENT_SUM[len(shape)]
    found = assert_kernel_matches_reference(operation, {"total": items[0], "items": items})["total"]
    np.testing.assert_array_equal(found, expected)


def test_sgd_follows_pytorchs_formula_over_several_steps():
    learning_rate, momentum, weight_decay = 0.1, 0.9, 0.01
    w, v = draw(5, 7), np.zeros((5, 7), np.float32)
    expected_w, buffer = w.astype(np.float64), None
    for step in range(4):
        g = draw(5, 7, seed=step + 1)
        scalars = {"learning_rate": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
        found = assert_kernel_matches_reference(
            SGD[2], {"w": w, "v": v, "g": g}, rtol=1e-6, atol=1e-6, **scalars
        )
        w, v = found["w"], found["v"]
        decayed = g + weight_decay * expected_w
        buffer = decayed if buffer is None else momentum * buffer + decayed
        expected_w = expected_w - learning_rate * buffer
    np.testing.assert_allclose(w, expected_w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4, 5)], ids=str)
def test_sgd_without_momentum_or_decay_is_one_step_down(shape):
    w, g = draw(*shape), draw(*shape, seed=1)
    found = outputs(SGD[len(shape)], {"w": w, "v": np.zeros_like(w), "g": g}, learning_rate=0.5)
    np.testing.assert_allclose(found["w"], w - 0.5 * g, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found["v"], g)


def test_record_puts_the_sum_where_the_index_says():
    history = np.arange(4, dtype=np.float64)
    items = [np.array([value]) for value in (0.25, 1.5, -3.0)]
    found = outputs(RECORD, {"history": history, "items": items}, index=2)["history"]
    np.testing.assert_array_equal(found, [0.0, 1.0, -1.25, 3.0])
    counts = [np.array([value]) for value in (3, 4)]
    found = outputs(RECORD_COUNT, {"history": np.zeros(1, np.int64), "items": counts}, index=0)["history"]
    np.testing.assert_array_equal(found, [7])


def test_an_index_outside_the_history_is_refused():
    history, items = np.zeros(3), [np.ones(1)]
    with pytest.raises(ShapeError, match="index 3 is outside a history of 3"):
        outputs(RECORD, {"history": history, "items": items}, index=3)
    with pytest.raises(IndexError, match="outside the history"):
        RECORD.kernel.function(history, items[0], -1, 0, 1)


def test_shapes_that_differ_are_named():
    with pytest.raises(ShapeError, match="sgd_2d: g is 2x4 where w needs 2x3"):
        SGD[2].check({"w": (2, 3), "v": (2, 3), "g": (2, 4)}, {})
    with pytest.raises(ShapeError, match="bias_4d: b is 5 where y needs 4"):
        BIAS_4D.check({"y": (2, 4, 3, 3), "b": (5,)}, {})
    with pytest.raises(ShapeError, match="relu_2d: y is 2x4 where x needs 2x3"):
        RELU[2].check({"x": (2, 3), "y": (2, 4)}, {})
    with pytest.raises(ShapeError, match="gradient_sum_1d: an item is 4 where total needs 3"):
        GRADIENT_SUM[1].check({"total": (3,), "items": ((3,), (4,))}, {})
