"""One task for a whole training step, against references of the single operations and plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dahl.ops import (
    CNN_EVALUATION,
    CNN_STEP,
    CNN_UPDATE_STEP,
    LENET_EVALUATION,
    LENET_STEP,
    LENET_UPDATE_STEP,
    SUM_AND_STEP,
    Operation,
    ShapeError,
)
from dahl.ops.handover import hand_over
from dahl.tiling import Tiling, tile_ends

from . import numpy_network
from .direct_context import compiled, execute
from .operation_checks import assert_kernel_matches_reference, outputs

CNN, LENET = (CNN_STEP, CNN_EVALUATION), (LENET_STEP, LENET_EVALUATION)


def shapes_of(image: tuple[int, ...], sizes: dict[str, int]) -> dict[str, tuple[int, ...]]:
    channels, height, width = image
    classes = sizes["classes"]
    if "filters" in sizes:
        filters = sizes["filters"]
        inputs = filters * ((height - 2) // 2) * ((width - 2) // 2)
        shapes = [(filters, channels, 3, 3), (filters,), (classes, inputs), (classes,)]
        names = ("conv1", "linear1")
    else:
        first, second, units = sizes["first_filters"], sizes["second_filters"], sizes["units"]
        inputs = second * (((height - 2) // 2 - 2) // 2) * (((width - 2) // 2 - 2) // 2)
        shapes = [(first, channels, 3, 3), (first,), (second, first, 3, 3), (second,)]
        shapes += [(units, inputs), (units,), (classes, units), (classes,)]
        names = ("conv1", "conv2", "linear1", "linear2")
    return dict(zip([f"{n}.{part}" for n in names for part in ("weight", "bias")], shapes, strict=True))


def case(
    image: tuple[int, ...], sizes: dict[str, int], count: int, first: int = 2, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(seed)
    size = first + count + 3
    parameters = [
        rng.uniform(-0.8, 0.8, shape) / np.sqrt(max(np.prod(shape[1:]), 4))
        for shape in shapes_of(image, sizes).values()
    ]
    columns = -(-count // 16) + 1
    named = {
        "images": rng.integers(0, 256, (size, *image), dtype=np.uint8),
        "labels": rng.integers(0, sizes["classes"], size).astype(np.int32),
        "order": rng.permutation(size),
        "mean": rng.uniform(0.2, 0.5, image[0]).astype(np.float32),
        "std": rng.uniform(0.2, 0.5, image[0]).astype(np.float32),
        "w": np.concatenate([part.ravel() for part in parameters]).astype(np.float32),
        "losses": rng.random((3, columns)),
    }
    return named, {"first": first, "index": 1, "count": count, **sizes}


def ends(tiles: Sequence[int]) -> np.ndarray:
    return np.array(tile_ends(tiles))


def cnn(filters: int, classes: int) -> dict[str, int]:
    return {"filters": filters, "classes": classes}


def lenet(first_filters: int, second_filters: int, units: int, classes: int) -> dict[str, int]:
    sizes = {"first_filters": first_filters, "second_filters": second_filters}
    return {**sizes, "units": units, "classes": classes}


CASES = [
    (CNN, (1, 28, 28), cnn(4, 10), 64),
    (CNN, (1, 28, 28), cnn(4, 10), 7),
    (CNN, (3, 13, 11), cnn(3, 7), 37),
    (CNN, (2, 4, 5), cnn(1, 2), 16),
    (CNN, (1, 9, 12), cnn(5, 23), 33),
    (LENET, (1, 28, 28), lenet(32, 64, 128, 10), 21),
    (LENET, (3, 12, 15), lenet(16, 48, 16, 7), 35),
    (LENET, (1, 10, 11), lenet(48, 16, 32, 13), 3),
]
each_case = pytest.mark.parametrize(("operations", "image", "sizes", "count"), CASES)
Operations = tuple[Operation, Operation]


@each_case
def test_the_gradient_of_a_tile_is_that_of_plain_numpy(
    operations: Operations, image: tuple[int, ...], sizes: dict[str, int], count: int
) -> None:
    """Sums of some thousand float32 products: 3e-7 of the largest was seen."""
    named, scalars = case(image, sizes, count)
    dw = np.full(named["w"].size, np.nan, np.float32)
    losses = named["losses"].copy()
    operands = [named[name] for name in ("images", "labels", "order", "mean", "std", "w")]
    execute(operations[0], [*operands, dw, losses], **scalars, scale=1 / count)
    chosen = named["order"][2 : 2 + count]
    mean, std = (named[name].astype(np.float64)[:, None, None] for name in ("mean", "std"))
    images, labels = (named["images"][chosen] / 255 - mean) / std, named["labels"][chosen]
    shapes = shapes_of(image, sizes)
    cuts = np.cumsum([np.prod(shape) for shape in shapes.values()])[:-1]
    parts = np.split(named["w"].astype(np.float64), cuts)
    weights = {name: p.reshape(shape) for (name, shape), p in zip(shapes.items(), parts, strict=True)}
    model = "basic_cnn" if operations is CNN else "lenet"
    expected = numpy_network.gradients(weights, images, labels, model)
    for name, part in zip(shapes, np.split(dw, cuts), strict=True):
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(part, expected[name].ravel(), rtol=0, atol=2e-6 * scale, err_msg=name)
    mean_loss = numpy_network.mean_loss(weights, images, labels, model)
    parts_of_tile = -(-count // 16)
    np.testing.assert_allclose(losses[1, :parts_of_tile].sum() / count, mean_loss, rtol=1e-6)
    untouched = np.ones_like(losses, bool)
    untouched[1, :parts_of_tile] = False
    np.testing.assert_array_equal(losses[untouched], named["losses"][untouched])


@each_case
def test_step_and_evaluation_match_the_references_of_the_single_operations(
    operations: Operations, image: tuple[int, ...], sizes: dict[str, int], count: int
) -> None:
    named, scalars = case(image, sizes, count, seed=1)
    step = {**named, "dw": np.zeros_like(named["w"])}
    assert_kernel_matches_reference(operations[0], step, **scalars, scale=1 / count)
    correct = np.full(named["losses"].shape, -5)
    found = assert_kernel_matches_reference(operations[1], {**named, "correct": correct}, **scalars)
    assert (found["correct"][[0, 2]] == -5).all()


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 5, 7, 8])
def test_tiles_of_16_32_and_64_images_and_mixed_ones_sum_to_the_same_bits(parts: int) -> None:
    """Gradients of tasks of 1, 2, 4 micro-tiles, all alike or mixed, summed by SUM_AND_STEP."""
    count = 16 * parts - 5
    named, scalars = case((1, 8, 9), cnn(2, 3), count)
    del scalars["count"], scalars["first"]
    found = []
    for sizes in ((16,), (32,), (64,), (64, 16), (32, 32, 16, 16), (64, 32, 16)):
        items, start, tiles = [], 0, Tiling(sizes).tiles(count)
        for images in tiles:
            own = {**scalars, "first": 2 + start, "count": images, "scale": 1 / count}
            step = {**named, "dw": np.zeros_like(named["w"])}
            items.append(outputs(CNN_STEP, step, **own)["dw"])
            start += images
        update = {"w": named["w"], "v": np.zeros_like(named["w"]), "items": items, "ends": ends(tiles)}
        found.append(outputs(SUM_AND_STEP, update, learning_rate=0.1)["w"])
    assert (found[0] != named["w"]).any()
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("count", [1, 2, 3, 6, 9])
def test_gradients_are_summed_and_stepped_along(count: int) -> None:
    rng = np.random.default_rng(count)
    w, v, *items = rng.standard_normal((2 + count, 37), dtype=np.float32)
    named = {"w": w, "v": v, "items": items, "ends": ends([16] * count)}
    assert_kernel_matches_reference(SUM_AND_STEP, named, learning_rate=0.05, momentum=0.9, weight_decay=0.01)


@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("pending", [0, 1])
@pytest.mark.parametrize(
    ("operation", "image", "sizes", "count"),
    [
        (CNN_UPDATE_STEP, (2, 9, 12), cnn(3, 7), 37),
        (LENET_UPDATE_STEP, (1, 10, 11), lenet(16, 32, 16, 5), 18),
    ],
)
def test_a_step_begins_with_the_update_that_is_pending(
    operation: Operation, image: tuple[int, ...], sizes: dict[str, int], count: int, pending: int, items: int
) -> None:
    named, scalars = case(image, sizes, count)
    rng, size = np.random.default_rng(items), named["w"].size
    named["v"], *gradients = 0.1 * rng.standard_normal((1 + items, size), dtype=np.float32)
    named |= {"items": gradients, "ends": ends([16] * items), "dw": np.zeros(size, np.float32)}
    rates = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01}
    found = assert_kernel_matches_reference(
        operation, named, **scalars, **rates, scale=1 / count, pending=pending
    )
    assert (found["w"] != named["w"]).any() == bool(pending)


def copied(values: np.ndarray, target: np.ndarray) -> None:
    hand_over(values, target)


def test_a_helper_of_kernels_is_not_called_from_python() -> None:
    with pytest.raises(
        TypeError, match="hand_over is compiled for kernels to call; from Python call its py_func"
    ):
        hand_over(np.zeros(1, np.float32), np.zeros(1, np.float32))


@pytest.mark.parametrize("start", [0, 1, 15])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 100])
def test_what_is_handed_over_is_a_copy_wherever_it_lies(start: int, size: int) -> None:
    values = np.arange(size, dtype=np.float32)
    around = np.full(start + size + 40, -1, np.float32)
    compiled(copied)(values, around[start : start + size])
    np.testing.assert_array_equal(around[start : start + size], values)
    assert (np.delete(around, slice(start, start + size)) == -1).all()


@pytest.mark.parametrize(
    ("operations", "image", "sizes"),
    [(CNN, (1, 8, 9), cnn(2, 3)), (LENET, (1, 10, 11), lenet(16, 16, 16, 3))],
)
def test_a_nan_in_any_parameter_reaches_the_loss(
    operations: Operations, image: tuple[int, ...], sizes: dict[str, int]
) -> None:
    named, scalars = case(image, sizes, 20)
    lengths = [int(np.prod(shape)) for shape in shapes_of(image, sizes).values()]
    for at in np.cumsum([0, *lengths])[:-1]:
        w = named["w"].copy()
        w[at] = np.nan
        step = {**named, "w": w, "dw": np.zeros_like(w)}
        assert np.isnan(outputs(operations[0], step, **scalars, scale=0.1)["losses"][1, :2]).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": 3}, ValueError, "a label is outside the classes"),
        ({"labels": -1}, ValueError, "a label is outside the classes"),
        ({"order": 99}, IndexError, "outside the data set"),
        ({"std": 0}, ValueError, "std is 0"),
    ],
)
def test_wrong_data_raise(change: dict[str, int], error: type[Exception], message: str) -> None:
    named, scalars = case((1, 8, 9), cnn(2, 3), 20)
    for name, value in change.items():
        named[name][...] = value
    with pytest.raises(error, match=message):
        outputs(CNN_STEP, {**named, "dw": np.zeros_like(named["w"])}, **scalars, scale=0.1)


def test_shapes_that_do_not_fit_are_refused() -> None:
    named, scalars = case((1, 8, 9), cnn(2, 3), 20)
    step = {**named, "dw": np.zeros_like(named["w"])}
    with pytest.raises(ShapeError, match=r"w is 76 where images .* needs 77"):
        outputs(CNN_STEP, {**step, "w": named["w"][:-1]}, **scalars, scale=0.1)
    update = {"w": named["w"], "v": named["w"], "items": [named["w"]] * 3, "ends": ends([16, 16])}
    with pytest.raises(ShapeError, match="ends has 2 entries for 3 items"):
        outputs(SUM_AND_STEP, update, learning_rate=0.1)
    with pytest.raises(ShapeError, match="losses has 1 columns for 2 micro-tiles"):
        outputs(CNN_STEP, {**step, "losses": np.zeros((3, 1))}, **scalars, scale=0.1)
