"""CUDA C of the operations, run on the host against their float64 references. Nothing here runs on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dahl import ops
from dahl.starpu.launch import FAILURES

from .cuda_host import needs_compiler, run_on_host
from .direct_context import poison
from .operation_checks import references
from .test_ops_fused import ends

pytestmark = needs_compiler
small = st.integers(1, 9)
few_runs = settings(max_examples=8, deadline=None, derandomize=True)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def labels(count, classes):
    return np.random.default_rng(count).integers(0, classes, count).astype(np.int32)


def assert_as_reference(operation, named, rtol, atol, **scalars):
    """Every output within rtol of its reference and atol of the largest value of it."""
    values = {**operation.defaults, **scalars}
    given_arrays = {
        operand.name: poison(named[operand.name].shape, operand.dtype)
        if operand.mode == "w"
        else named[operand.name]
        for operand in operation.kernel.operands
    }
    found, failure = run_on_host(operation, given_arrays, values)
    assert failure == 0, FAILURES[failure]
    expected = references(operation, named, **scalars)
    assert set(found) == set(expected)
    for name, value in found.items():
        scale = max(1.0, float(np.abs(expected[name]).max(initial=0.0)))
        np.testing.assert_allclose(value, expected[name], rtol=rtol, atol=atol * scale, err_msg=name)
    return found


@few_runs
@given(st.integers(1, 700), st.sampled_from([2, 4]))
def test_relu_and_its_gradient_are_exact(size, ndim):
    shape = (size, 1, 1, 1)[:ndim]
    x, dy = normal(*shape), normal(*shape, seed=1)
    y = np.maximum(x, 0)
    assert_as_reference(ops.RELU[ndim], {"x": x, "y": x}, 0, 0)
    assert_as_reference(ops.RELU_IN_PLACE[ndim], {"y": x}, 0, 0)
    assert_as_reference(ops.RELU_BACKWARD[ndim], {"y": y, "dy": dy, "dx": dy}, 0, 0)
    assert_as_reference(ops.RELU_BACKWARD_IN_PLACE[ndim], {"y": y, "dy": dy}, 0, 0)


def test_relu_keeps_a_nan():
    found, _ = run_on_host(ops.RELU_IN_PLACE[2], {"y": np.array([[np.nan, -1.0]], np.float32)}, {})
    assert np.isnan(found["y"][0, 0])
    assert found["y"][0, 1] == 0


@few_runs
@given(st.integers(1, 70), st.integers(1, 40), small, small)
def test_bias_and_its_gradient(images, channels, height, width):
    y, b = normal(images, channels, height, width), normal(channels)
    assert_as_reference(ops.BIAS_4D, {"y": y, "b": b}, 1e-6, 1e-6)
    assert_as_reference(ops.BIAS_GRADIENT_4D, {"dy": y, "db": b}, 2e-6, 2e-6)
    rows = y[:, :, 0, 0].copy()
    assert_as_reference(ops.BIAS_2D, {"y": rows, "b": b}, 1e-6, 1e-6)
    assert_as_reference(ops.BIAS_GRADIENT_2D, {"dy": rows, "db": b}, 2e-6, 2e-6)


@few_runs
@given(small, st.integers(1, 5), st.integers(1, 4), st.integers(0, 6), st.integers(0, 6))
def test_max_pooling_and_its_gradient(images, size, stride, more_rows, more_columns):
    x = normal(images, 2, size + more_rows, size + more_columns)
    small_shape = (images, 2, more_rows // stride + 1, more_columns // stride + 1)
    y, argmax = normal(*small_shape), np.zeros(small_shape, np.uint8)
    window = {"size": size, "stride": stride}
    found = assert_as_reference(ops.MAX_POOL2D, {"x": x, "y": y, "argmax": argmax}, 0, 0, **window)
    gradient = {"dy": y, "argmax": found["argmax"], "dx": x}
    assert_as_reference(ops.MAX_POOL2D_BACKWARD, gradient, 1e-6, 1e-6, **window)


def test_max_pooling_takes_the_first_nan_and_the_first_of_equals():
    x = np.array([[[[1.0, np.nan, 5, 5], [np.nan, 2.0, 5, 5]]]], np.float32)
    arrays = {"x": x, "y": poison((1, 1, 1, 2)), "argmax": poison((1, 1, 1, 2), "uint8")}
    found, _ = run_on_host(ops.MAX_POOL2D, arrays, {"size": 2, "stride": 2})
    np.testing.assert_array_equal(found["y"], [[[[np.nan, 5]]]])
    np.testing.assert_array_equal(found["argmax"], [[[[1, 0]]]])


@pytest.mark.parametrize(
    ("images", "channels", "filters", "size", "stride", "padding", "window"),
    [
        (3, 1, 4, 11, 1, 0, 3),
        (2, 3, 17, 9, 2, 1, 3),
        (2, 33, 65, 6, 1, 2, 5),
        (5, 4, 5, 7, 3, 0, 1),
        (70, 2, 2, 5, 1, 1, 2),
    ],
)
def test_convolution_and_its_gradients(images, channels, filters, size, stride, padding, window):
    out = (size + 2 * padding - window) // stride + 1
    x, w = normal(images, channels, size, size + 1), normal(filters, channels, window, window, seed=1)
    wide = (size + 1 + 2 * padding - window) // stride + 1
    dy = normal(images, filters, out, wide, seed=2)
    steps = {"stride": stride, "padding": padding}
    assert_as_reference(ops.CONV2D, {"x": x, "w": w, "y": dy}, 1e-5, 2e-6, **steps)
    assert_as_reference(ops.CONV2D_BACKWARD_INPUT, {"dy": dy, "w": w, "dx": x}, 1e-5, 2e-6, **steps)
    assert_as_reference(ops.CONV2D_BACKWARD_WEIGHT, {"x": x, "dy": dy, "dw": w}, 1e-5, 2e-6, **steps)


@few_runs
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_linear_and_its_gradients(rows, inputs, units):
    x, w, dy = normal(rows, inputs), normal(units, inputs, seed=1), normal(rows, units, seed=2)
    assert_as_reference(ops.LINEAR, {"x": x, "w": w, "y": dy}, 1e-5, 2e-6)
    assert_as_reference(ops.LINEAR_BACKWARD_INPUT, {"dy": dy, "w": w, "dx": x}, 1e-5, 2e-6)
    assert_as_reference(ops.LINEAR_BACKWARD_WEIGHT, {"x": x, "dy": dy, "dw": w}, 1e-5, 2e-6)


@few_runs
@given(st.integers(1, 300), st.integers(2, 12))
def test_loss_gradient_and_count_of_right_answers(rows, classes):
    logits, wanted = 3 * normal(rows, classes), labels(rows, classes)
    loss, correct = np.zeros(1), np.zeros(1, np.int64)
    arrays = {"logits": logits, "labels": wanted, "dlogits": logits, "loss": loss}
    assert_as_reference(ops.SOFTMAX_CROSS_ENTROPY, arrays, 1e-5, 1e-6, scale=1 / rows)
    assert_as_reference(ops.CROSS_ENTROPY, {"logits": logits, "labels": wanted, "loss": loss}, 1e-6, 1e-6)
    assert_as_reference(ops.ACCURACY, {"logits": logits, "labels": wanted, "correct": correct}, 0, 0)


def test_a_row_with_a_nan_is_wrong_and_makes_the_loss_a_nan():
    logits = np.array([[0, 1.0], [np.nan, 1.0]], np.float32)
    wanted = np.ones(2, np.int32)
    found, _ = run_on_host(
        ops.ACCURACY, {"logits": logits, "labels": wanted, "correct": np.zeros(1, np.int64)}, {}
    )
    assert found["correct"][0] == 1
    found, _ = run_on_host(ops.CROSS_ENTROPY, {"logits": logits, "labels": wanted, "loss": np.zeros(1)}, {})
    assert np.isnan(found["loss"][0])


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_outside_the_classes_is_reported(label):
    wanted = np.array([0, label], np.int32)
    for operation, more in (
        (ops.ACCURACY, {"correct": np.zeros(1, np.int64)}),
        (ops.CROSS_ENTROPY, {"loss": np.zeros(1)}),
        (ops.SOFTMAX_CROSS_ENTROPY, {"dlogits": normal(2, 2), "loss": np.zeros(1)}),
    ):
        scalars = {"scale": 1.0} if "dlogits" in more else {}
        _, failure = run_on_host(operation, {"logits": normal(2, 2), "labels": wanted, **more}, scalars)
        assert FAILURES[failure] == "a label is outside the classes"


def gather_arrays(images=5, count=3, channels=2):
    random = np.random.default_rng(7)
    return {
        "images": random.integers(0, 256, (images, channels, 3, 5)).astype(np.uint8),
        "labels": labels(images, 4),
        "order": random.permutation(images).astype(np.int64),
        "mean": normal(channels),
        "std": np.abs(normal(channels, seed=1)) + 0.5,
        "x": poison((count, channels, 3, 5)),
        "y": poison((count,), "int32"),
    }


@pytest.mark.parametrize("first", [0, 2])
def test_gather_takes_the_images_that_order_names(first):
    assert_as_reference(ops.GATHER, gather_arrays(), 1e-6, 1e-6, first=first)


@pytest.mark.parametrize(
    ("change", "first", "message"),
    [
        ({}, 3, "first and the tile's length reach outside order"),
        ({"order": np.array([0, 5, 1, 2, 3])}, 0, "order names an image outside the data set"),
        ({"labels": np.full(5, -1, np.int32)}, 0, "a label is negative"),
        ({"std": np.zeros(2, np.float32)}, 0, "std is 0"),
    ],
)
def test_gather_reports_what_cannot_be(change, first, message):
    _, failure = run_on_host(ops.GATHER, {**gather_arrays(), **change}, {"first": first})
    assert FAILURES[failure] == message


@few_runs
@given(st.integers(1, 600), st.sampled_from([1, 2, 4]))
def test_sgd(size, ndim):
    shape = (size, 1, 1, 1)[:ndim]
    arrays = {"w": normal(*shape), "v": normal(*shape, seed=1), "g": normal(*shape, seed=2)}
    rates = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    assert_as_reference(ops.SGD[ndim], arrays, 1e-6, 1e-6, **rates)


@pytest.mark.parametrize("count", [1, 2, 3, 31, 32, 33, 70])
def test_sums_of_any_number_of_items_have_the_bits_of_the_cpu(count):
    items = [normal(13, seed=item) for item in range(count)]
    found = assert_as_reference(ops.GRADIENT_SUM[1], {"total": items[0], "items": items}, 1e-5, 1e-6)
    total = items[0].copy()
    for item in items[1:]:
        total += item
    np.testing.assert_array_equal(found["total"], total)
    arrays = {"w": normal(13), "v": normal(13, seed=1), "items": items, "ends": ends([16] * count)}
    rates = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    assert_as_reference(ops.SUM_AND_STEP, arrays, 1e-5, 1e-6, **rates)
    left = list(items)  # neighbours, pairs of neighbours, and so on; what is over is added from the end
    while len(left) > 1:
        pairs = [a + b for a, b in zip(left[::2], left[1::2], strict=False)]
        left = pairs + left[len(pairs) * 2 :]
    np.testing.assert_array_equal(summed(items, [16] * count), left[0])


@pytest.mark.parametrize("tiles", [(64, 64, 16, 16, 16, 5), (128, 32, 32), (32,) * 20 + (16,) * 25 + (3,)])
def test_tiles_of_several_sizes_are_summed_as_their_smallest_parts(tiles):
    parts = [
        [normal(13, seed=100 * tile + k) for k in range(-(-size // 16))] for tile, size in enumerate(tiles)
    ]
    items = [summed(part, [16] * len(part)) for part in parts]
    whole = [one for part in parts for one in part]
    np.testing.assert_array_equal(summed(items, tiles), summed(whole, [16] * len(whole)))


def summed(items, tiles):
    """Minus a step of rate 1 from nothing: the sum."""
    nothing = np.zeros(13, np.float32)
    arrays = {"w": nothing, "v": nothing, "items": items, "ends": ends(tiles)}
    plain = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    return -run_on_host(ops.SUM_AND_STEP, arrays, plain)[0]["w"]


@pytest.mark.parametrize(("operation", "dtype"), [(ops.RECORD, np.float64), (ops.RECORD_COUNT, np.int64)])
def test_records_add_up_items_at_their_index(operation, dtype):
    items = [np.array([value], dtype) for value in range(1, 41)]
    arrays = {"history": np.array([5, 6, 7], dtype), "items": items}
    assert_as_reference(operation, arrays, 0, 0, index=1)
    moved = np.int64(3)  # as a recorded graph moves it: not an index that the check sees
    _, failure = run_on_host(operation, arrays, {"index": moved})
    assert FAILURES[failure] == "index is outside the history"
