import numpy as np
import pytest

from dahl.ops import MAX_POOL2D, MAX_POOL2D_BACKWARD, ShapeError
from dahl.ops.max_pool2d import pooled_shape

from .operation_checks import assert_kernel_matches_reference, central_difference, outputs

# shape, size, stride
CASES = [
    ((16, 4, 26, 26), 2, 2),
    ((3, 5, 11, 11), 2, 2),
    ((2, 3, 7, 10), 2, 2),
    ((1, 1, 2, 3), 2, 2),
    ((2, 2, 4, 9), 2, 2),
    ((2, 2, 5, 16), 2, 2),
    ((1, 3, 8, 19), 2, 2),
    ((1, 3, 3, 7), 2, 2),
    ((2, 3, 9, 8), 3, 3),
    ((2, 2, 9, 8), 3, 2),
    ((2, 2, 9, 10), 2, 3),
    ((1, 2, 17, 16), 16, 1),
    ((2, 1, 5, 4), 1, 1),
]


def arrays(shape, size, stride):
    rng = np.random.default_rng(0)
    x = rng.integers(-5, 5, shape).astype(np.float32)  # many ties: the first one counts
    small = pooled_shape(shape, size, stride)
    return x, rng.standard_normal(small, dtype=np.float32), np.zeros(small, np.uint8)


@pytest.mark.parametrize(("shape", "size", "stride"), CASES, ids=str)
def test_the_kernels_agree_with_float64(shape, size, stride):
    x, dy, argmax = arrays(shape, size, stride)
    scalars = {"size": size, "stride": stride}
    exact = {"rtol": 0, "atol": 0}
    found = assert_kernel_matches_reference(
        MAX_POOL2D, {"x": x, "y": dy, "argmax": argmax}, **exact, **scalars
    )
    named = {"dy": dy, "argmax": found["argmax"], "dx": x}
    assert_kernel_matches_reference(MAX_POOL2D_BACKWARD, named, rtol=1e-6, atol=1e-6, **scalars)


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (2, 3)])
def test_the_gradient_is_a_central_difference(size, stride):
    shape = (1, 2, 7, 8)
    x = np.random.default_rng(1).permutation(112).reshape(shape).astype(np.float64)
    scalars = {"size": size, "stride": stride}
    dy = np.random.default_rng(2).standard_normal(pooled_shape(shape, size, stride))

    def loss(value):
        return (MAX_POOL2D.reference({"x": value}, scalars)["y"] * dy).sum()

    argmax = MAX_POOL2D.reference({"x": x}, scalars)["argmax"]
    found = MAX_POOL2D_BACKWARD.reference({"dy": dy, "argmax": argmax, "dx": x}, scalars)["dx"]
    np.testing.assert_allclose(found, central_difference(loss, x, step=1e-3), atol=1e-9)


@pytest.mark.parametrize("width", [6, 9, 17])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (2, 1), (3, 3)])
def test_a_nan_is_the_largest_wherever_it_stands(size, stride, width):
    for place in np.ndindex(size, size):
        x = np.ones((1, 1, 6, width), np.float32)
        x[0, 0][place] = np.nan
        y = np.zeros(pooled_shape(x.shape, size, stride), np.float32)
        named = {"x": x, "y": y, "argmax": y.astype(np.uint8)}
        found = outputs(MAX_POOL2D, named, size=size, stride=stride)
        assert np.isnan(found["y"][0, 0, 0, 0])
        assert found["argmax"][0, 0, 0, 0] == place[0] * size + place[1]


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match="a window of 3x3 does not fit 1x1x2x5"):
        pooled_shape((1, 1, 2, 5), 3, 3)
    with pytest.raises(ShapeError, match="size must be 1 to 16, got 17"):
        pooled_shape((1, 1, 20, 20), 17, 1)
    shapes = {"x": (1, 1, 5, 5), "y": (1, 1, 3, 3), "argmax": (1, 1, 2, 2)}
    with pytest.raises(
        ShapeError, match="y is 1x1x3x3 where x 1x1x5x5 with size 2 and stride 2 needs 1x1x2x2"
    ):
        MAX_POOL2D.check(shapes, MAX_POOL2D.defaults)
