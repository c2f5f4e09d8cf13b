"""Softmax cross-entropy and accuracy."""

import numpy as np
import pytest
from scipy.special import log_softmax

from dahl.ops import ACCURACY, CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY, ShapeError

from .operation_checks import assert_kernel_matches_reference, central_difference, outputs


def arrays(count, classes, spread=1.0):
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((count, classes)) * spread).astype(np.float32)
    return logits, rng.integers(0, classes, count).astype(np.int32)


def named(logits, labels):
    return {"logits": logits, "labels": labels, "dlogits": logits, "loss": np.zeros(1)}


@pytest.mark.parametrize(("count", "classes", "spread"), [(16, 10, 1), (1, 1, 1), (3, 7, 30), (5, 1000, 3)])
def test_the_kernels_agree_with_float64(count, classes, spread):
    values = named(*arrays(count, classes, spread))
    found = assert_kernel_matches_reference(SOFTMAX_CROSS_ENTROPY, values, rtol=1e-5, atol=1e-6, scale=1 / 64)
    expected = -log_softmax(values["logits"].astype(np.float64), axis=1)[
        np.arange(count), values["labels"]
    ].sum()
    np.testing.assert_allclose(found["loss"], [expected], rtol=1e-6, atol=1e-6)
    del values["dlogits"]
    alone = assert_kernel_matches_reference(CROSS_ENTROPY, values, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(alone["loss"], found["loss"], rtol=1e-6)


def test_the_gradient_is_a_central_difference_of_the_scaled_loss():
    logits, labels = arrays(3, 5)

    def loss(value):
        return CROSS_ENTROPY.reference({"logits": value, "labels": labels}, {})["loss"][0] * 0.25

    found = SOFTMAX_CROSS_ENTROPY.reference(named(logits.astype(np.float64), labels), {"scale": 0.25})[
        "dlogits"
    ]
    np.testing.assert_allclose(found, central_difference(loss, logits.astype(np.float64)), atol=1e-8)


def test_logits_of_a_thousand_do_not_overflow():
    logits = np.array([[1000.0, 0.0], [-1000.0, 0.0]], np.float32)
    found = outputs(SOFTMAX_CROSS_ENTROPY, named(logits, np.array([0, 0], np.int32)), scale=1.0)
    np.testing.assert_array_equal(found["loss"], [1000.0])
    np.testing.assert_array_equal(found["dlogits"], [[0.0, 0.0], [-1.0, 1.0]])


@pytest.mark.parametrize("place", [0, 2])
def test_a_nan_makes_the_loss_a_nan(place):
    logits, labels = arrays(2, 4)
    logits[1, place] = np.nan
    assert np.isnan(outputs(SOFTMAX_CROSS_ENTROPY, named(logits, labels), scale=1.0)["loss"][0])


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_outside_the_classes_raises(label):
    logits, labels = arrays(2, 4)
    labels[1] = label
    values = {**named(logits, labels), "correct": np.zeros(1, np.int64)}
    for operation, scalars in ((SOFTMAX_CROSS_ENTROPY, {"scale": 1.0}), (CROSS_ENTROPY, {}), (ACCURACY, {})):
        operands = [operand.name for operand in operation.kernel.operands]
        with pytest.raises(ValueError, match="a label is outside the classes"):
            outputs(operation, {name: values[name] for name in operands}, **scalars)


def test_accuracy_gives_ties_to_the_first_and_nothing_to_a_nan():
    nan = np.nan
    logits = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 2], [nan, 1, 2], [0, 1, nan], [3, 2, 1]], np.float32)
    labels = np.array([0, 1, 2, 2, 1, 0], np.int32)
    values = {"logits": logits, "labels": labels, "correct": np.zeros(1, np.int64)}
    assert outputs(ACCURACY, values)["correct"][0] == 3


def test_accuracy_agrees_with_argmax():
    logits, labels = arrays(100, 3)
    values = {"logits": logits, "labels": labels, "correct": np.zeros(1, np.int64)}
    found = assert_kernel_matches_reference(ACCURACY, values, rtol=0, atol=0)["correct"][0]
    assert found == sum(
        int(max(range(3), key=row.__getitem__)) == label for row, label in zip(logits, labels, strict=True)
    )


def test_wrong_shapes_are_named():
    shapes = {"logits": (4, 3), "labels": (5,), "dlogits": (4, 3), "loss": (1,)}
    with pytest.raises(ShapeError, match="softmax_cross_entropy: labels is 5 where logits needs 4"):
        SOFTMAX_CROSS_ENTROPY.check(shapes, {"scale": 1.0})
