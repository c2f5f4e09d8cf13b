import numpy as np
import pytest

from dahl.ops import GATHER, ShapeError

from .operation_checks import assert_kernel_matches_reference, outputs


def arrays(shape=(20, 3, 5, 7), tile=6):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    channels = shape[1]
    return {
        "images": images,
        "labels": rng.integers(0, 10, shape[0]).astype(np.int32),
        "order": rng.permutation(shape[0]),
        "mean": np.linspace(0.1, 0.6, channels, dtype=np.float32),
        "std": np.linspace(0.2, 0.4, channels, dtype=np.float32),
        "x": np.zeros((tile, *shape[1:]), np.float32),
        "y": np.zeros(tile, np.int32),
    }


@pytest.mark.parametrize(
    ("shape", "tile", "first"), [((20, 3, 5, 7), 6, 3), ((9, 1, 28, 28), 9, 0), ((4, 2, 1, 1), 1, 3)]
)
def test_the_kernel_agrees_with_float64(shape, tile, first):
    assert_kernel_matches_reference(GATHER, arrays(shape, tile), rtol=1e-6, atol=1e-6, first=first)


def test_the_images_follow_the_order_with_their_labels():
    values = arrays()
    found = outputs(GATHER, values, first=4)
    pixels = found["x"] * values["std"][:, None, None] + values["mean"][:, None, None]
    for i, source in enumerate(values["order"][4:10]):
        np.testing.assert_array_equal(np.rint(pixels[i] * 255), values["images"][source])
        assert found["y"][i] == values["labels"][source]


@pytest.mark.parametrize("entry", [-1, 20])
def test_an_order_entry_outside_the_data_set_raises(entry):
    values = arrays()
    values["order"][5] = entry
    with pytest.raises(IndexError, match="outside the data set"):
        outputs(GATHER, values, first=0)


@pytest.mark.parametrize("first", [-1, 15])
def test_a_window_outside_the_order_raises(first):
    with pytest.raises(IndexError, match="outside order"):
        outputs(GATHER, arrays(), first=first)


def test_a_negative_label_raises():
    values = arrays()
    values["labels"][values["order"][2]] = -1
    with pytest.raises(ValueError, match="a label is negative"):
        outputs(GATHER, values, first=0)


def test_a_std_of_zero_raises():
    values = arrays()
    values["std"][1] = 0
    with pytest.raises(ValueError, match="std is 0"):
        outputs(GATHER, values, first=0)


def test_wrong_shapes_are_named():
    shapes = {name: value.shape for name, value in arrays().items()}
    with pytest.raises(ShapeError, match="gather: x is 6x3x5x8 where images needs 6x3x5x7"):
        GATHER.check({**shapes, "x": (6, 3, 5, 8)}, {"first": 0})
    with pytest.raises(ShapeError, match="order has 5 entries for a tile of 6"):
        GATHER.check({**shapes, "order": (5,)}, {"first": 0})
