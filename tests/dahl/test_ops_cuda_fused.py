"""CUDA C of whole training steps, run on the host against their float64 references. Nothing here runs on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from dahl.ops import (
    CNN_EVALUATION,
    CNN_STEP,
    CNN_UPDATE_STEP,
    LENET_EVALUATION,
    LENET_STEP,
    LENET_UPDATE_STEP,
)
from dahl.starpu.launch import FAILURES

from .cuda_host import needs_compiler, run_on_host
from .direct_context import poison
from .test_ops_cuda import assert_as_reference
from .test_ops_fused import case, cnn, ends, lenet

pytestmark = needs_compiler
RATES = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01}
RTOL, ATOL = 2e-5, 4e-6
"""What docs/gpu-kernels.md says of these operations."""

CNN = CNN_STEP, CNN_UPDATE_STEP, CNN_EVALUATION
LENET = LENET_STEP, LENET_UPDATE_STEP, LENET_EVALUATION
CASES = [
    pytest.param(*CNN, (1, 9, 11), cnn(4, 10), 21, id="cnn"),
    pytest.param(*LENET, (1, 12, 13), lenet(32, 64, 32, 10), 18, id="lenet"),
    pytest.param(*CNN, (3, 8, 6), cnn(5, 3), 3, id="cnn of 3 channels"),
    pytest.param(*CNN, (3, 4, 5), cnn(90, 2), 3, id="cnn of more pairs than threads"),
    pytest.param(*CNN, (2, 4, 4), cnn(1, 37), 259, id="cnn, blocks of 8"),
    pytest.param(*CNN, (3, 64, 71), cnn(6, 4), 2, id="cnn in scratch"),
    pytest.param(*LENET, (3, 19, 10), lenet(16, 80, 48, 7), 3, id="lenet of 3 channels"),
    pytest.param(*LENET, (1, 35, 34), lenet(48, 16, 16, 3), 2, id="lenet in scratch"),
    pytest.param(*LENET, (1, 10, 10), lenet(16, 16, 16, 2), 258, id="lenet, two images to a part"),
]
PLAIN = CASES[:2]


@pytest.mark.parametrize(("step", "update_step", "evaluation", "image", "sizes", "count"), CASES)
def test_whole_steps_and_evaluations(step, update_step, evaluation, image, sizes, count):
    named, scalars = case(image, sizes, count)
    trained = {**named, "dw": named["w"]}
    assert_as_reference(step, trained, RTOL, ATOL, **scalars, scale=1 / count)
    correct = np.full(named["losses"].shape, 4, np.int64)
    assert_as_reference(evaluation, {**named, "correct": correct}, RTOL, ATOL, **scalars)


@pytest.mark.parametrize(("step", "update_step", "evaluation", "image", "sizes", "count"), PLAIN)
@pytest.mark.parametrize(("pending", "items"), [(0, 1), (1, 1), (1, 3), (1, 40)])
def test_steps_that_begin_with_the_update(step, update_step, evaluation, image, sizes, count, pending, items):
    named, scalars = case(image, sizes, count)
    rng = np.random.default_rng(3)
    size = named["w"].size
    gradients = [rng.normal(0, 0.01, size).astype(np.float32) for _ in range(items)]
    v = rng.normal(0, 0.01, size).astype(np.float32)
    arrays = {**named, "v": v, "dw": named["w"], "items": gradients, "ends": ends([16] * items)}
    assert_as_reference(update_step, arrays, RTOL, ATOL, **scalars, **RATES, scale=1 / count, pending=pending)


@pytest.mark.parametrize("operation", [case.values[0] for case in PLAIN])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": 6}, "first and the tile's length reach outside order"),
        ({"order": 99}, "order names an image outside the data set"),
        ({"labels": 10}, "a label is outside the classes"),
        ({"std": 0}, "std is 0"),
        ({"index": 3}, "index is outside the history"),
    ],
)
def test_what_cannot_be_is_reported(operation, change, message):
    image, sizes, count = next(
        (c.values[3], c.values[4], c.values[5]) for c in CASES if c.values[0] is operation
    )
    named, scalars = case(image, sizes, count)
    arrays = {**named, "dw": poison(named["w"].shape)}
    for name, value in change.items():
        if name in arrays:
            arrays[name] = np.full_like(arrays[name], value)
        else:
            scalars[name] = value
    _, failure = run_on_host(operation, arrays, {**operation.defaults, **scalars, "scale": 1.0})
    assert FAILURES[failure] == message


@pytest.mark.parametrize("operation", [case.values[0] for case in PLAIN])
def test_a_nan_among_the_parameters_reaches_the_loss(operation):
    image, sizes, count = next(
        (c.values[3], c.values[4], c.values[5]) for c in CASES if c.values[0] is operation
    )
    named, scalars = case(image, sizes, count)
    named["w"][0] = np.nan
    arrays = {**named, "dw": poison(named["w"].shape)}
    found, _ = run_on_host(operation, arrays, {**operation.defaults, **scalars, "scale": 1.0})
    assert np.isnan(found["losses"][1, :2]).all()
