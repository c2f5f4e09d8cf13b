import numpy as np
import pytest
from scipy.signal import correlate2d

from dahl.ops import CONV2D, CONV2D_BACKWARD_INPUT, CONV2D_BACKWARD_WEIGHT, ShapeError
from dahl.ops.conv2d import convolved_shape, uses_direct_loops

from .operation_checks import assert_kernel_matches_reference, central_difference, outputs, references

# images, channels, height, width, filters, kernel height, kernel width, stride, padding
CASES = [
    (16, 1, 28, 28, 4, 3, 3, 1, 0),
    (3, 32, 13, 13, 64, 3, 3, 1, 0),
    (2, 3, 7, 9, 5, 3, 3, 1, 1),
    (1, 1, 3, 3, 1, 3, 3, 1, 0),
    (2, 2, 5, 4, 3, 5, 4, 1, 0),
    (2, 3, 9, 11, 4, 2, 5, 1, 2),
    (1, 1, 1, 1, 1, 1, 1, 1, 0),
    (5, 7, 8, 6, 11, 3, 3, 2, 1),
    (3, 2, 11, 7, 3, 3, 2, 3, 0),
    (2, 40, 6, 5, 3, 1, 1, 1, 0),
    (2, 1, 6, 5, 40, 3, 3, 1, 2),
    (1, 3, 8, 8, 2, 3, 3, 4, 4),
    (2, 2, 4, 4, 3, 2, 2, 1, 3),
    (1, 2, 130, 70, 3, 3, 3, 1, 1),
    (2, 3, 5, 16, 5, 3, 3, 1, 1),
    (3, 2, 7, 17, 7, 2, 2, 1, 0),
    (2, 1, 9, 33, 1, 5, 4, 1, 2),
    (1, 4, 3, 34, 2, 1, 1, 1, 0),
    (2, 3, 4, 18, 6, 2, 3, 1, 4),
    (1, 1, 20, 51, 9, 7, 7, 1, 3),
    (1, 40, 90, 101, 9, 3, 3, 1, 1),
    (4, 9, 40, 41, 8, 5, 5, 2, 0),
]


def arrays(case, seed=0):
    n, c, h, w, f, kh, kw, stride, padding = case
    rng = np.random.default_rng(seed)
    shape = convolved_shape((n, c, h, w), (f, c, kh, kw), stride, padding)
    draw = [rng.standard_normal(s, dtype=np.float32) for s in ((n, c, h, w), (f, c, kh, kw), shape)]
    return (*draw, {"stride": stride, "padding": padding})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_kernels_agree_with_float64(case):
    x, w, dy, scalars = arrays(case)
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    assert_kernel_matches_reference(CONV2D, {"x": x, "w": w, "y": dy}, **tolerance, **scalars)
    assert_kernel_matches_reference(
        CONV2D_BACKWARD_INPUT, {"dy": dy, "w": w, "dx": x}, **tolerance, **scalars
    )
    assert_kernel_matches_reference(
        CONV2D_BACKWARD_WEIGHT, {"x": x, "dy": dy, "dw": w}, **tolerance, **scalars
    )


def test_the_cases_take_both_paths_in_both_directions():
    forward, backward = set(), set()
    for n, c, h, w, f, kh, kw, stride, padding in CASES:
        columns = convolved_shape((n, c, h, w), (f, c, kh, kw), stride, padding)[3]
        forward.add(uses_direct_loops(c * kh * kw, columns, stride))
        backward.add(uses_direct_loops(f * kh * kw, w, stride))
    assert forward == backward == {True, False}


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (3, 2)])
def test_the_reference_agrees_with_scipy(stride, padding):
    x, w, y, scalars = arrays((2, 3, 8, 7, 4, 3, 2, stride, padding))
    padded = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2)).astype(np.float64)
    expected = np.zeros(y.shape)
    for n, f, c in np.ndindex(2, 4, 3):
        expected[n, f] += correlate2d(padded[n, c], w[f, c], mode="valid")[::stride, ::stride]
    found = references(CONV2D, {"x": x, "w": w, "y": y}, **scalars)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", [(2, 2, 5, 4, 3, 3, 2, 1, 1), (1, 3, 6, 5, 2, 2, 3, 2, 1)], ids=str)
def test_the_reference_gradients_are_central_differences(case):
    x, w, dy, scalars = arrays(case)
    x, w, dy = (value.astype(np.float64) for value in (x, w, dy))

    def loss(inputs, weights):
        return (CONV2D.reference({"x": inputs, "w": weights}, scalars)["y"] * dy).sum()

    dx = CONV2D_BACKWARD_INPUT.reference({"dy": dy, "w": w, "dx": x}, scalars)["dx"]
    dw = CONV2D_BACKWARD_WEIGHT.reference({"x": x, "dy": dy, "dw": w}, scalars)["dw"]
    np.testing.assert_allclose(dx, central_difference(lambda value: loss(value, w), x), atol=1e-7)
    np.testing.assert_allclose(dw, central_difference(lambda value: loss(x, value), w), atol=1e-7)


@pytest.mark.parametrize("case", [(2, 1, 8, 18, 3, 3, 3, 1, 1), (2, 40, 8, 8, 40, 3, 3, 1, 1)], ids=str)
def test_a_nan_reaches_what_depends_on_it(case):
    x, w, dy, scalars = arrays(case)
    x[0, 0, 4, 4] = np.nan
    y = outputs(CONV2D, {"x": x, "w": w, "y": dy}, **scalars)["y"]
    assert np.isnan(y[0, :, 3:6, 3:6]).all()
    assert np.isfinite(y[1]).all()
    assert np.isnan(outputs(CONV2D_BACKWARD_WEIGHT, {"x": x, "dy": dy, "dw": w}, **scalars)["dw"][:, 0]).all()
    dy[1, 0, 4, 4] = np.nan
    dx = outputs(CONV2D_BACKWARD_INPUT, {"dy": dy, "w": w, "dx": x}, **scalars)["dx"]
    assert np.isnan(dx[1, :, 3:6, 3:6]).all()
    assert np.isfinite(dx[0]).all()


def test_an_image_of_a_tile_gives_the_same_bits_alone():
    x, w, dy, scalars = arrays((5, 1, 9, 19, 4, 3, 3, 1, 0))
    together = outputs(CONV2D, {"x": x, "w": w, "y": dy}, **scalars)["y"]
    alone = outputs(CONV2D, {"x": x[3:4], "w": w, "y": dy[3:4]}, **scalars)["y"]
    np.testing.assert_array_equal(together[3:4], alone)


def check(x, w, y, **scalars):
    CONV2D.check({"x": x, "w": w, "y": y}, {**CONV2D.defaults, **scalars})


def test_wrong_shapes_are_named():
    with pytest.raises(
        ShapeError, match="y is 2x4x7x7 where x 2x3x8x8 with w 4x3x3x3, stride 1 and padding 0 needs"
    ):
        check((2, 3, 8, 8), (4, 3, 3, 3), (2, 4, 7, 7))
    with pytest.raises(ShapeError, match="2x3x8x8 has 3 channels where the weights 4x2x3x3 take 2"):
        check((2, 3, 8, 8), (4, 2, 3, 3), (2, 4, 6, 6))
    with pytest.raises(ShapeError, match="a kernel of 5x5 does not fit 1x1x4x4 with padding 0"):
        check((1, 1, 4, 4), (1, 1, 5, 5), (1, 1, 0, 0))
    with pytest.raises(ShapeError, match="stride must be at least 1, got 0"):
        check((1, 1, 4, 4), (1, 1, 3, 3), (1, 1, 2, 2), stride=0)


def test_the_cost_of_lenets_second_convolution():
    shapes = {"x": (16, 32, 13, 13), "w": (64, 32, 3, 3), "y": (16, 64, 11, 11)}
    cost = CONV2D.cost(shapes, CONV2D.defaults)
    assert cost.flops == 2 * 16 * 64 * 121 * 288
    assert cost.bytes == 4 * (16 * 32 * 169 + 64 * 288 + 16 * 64 * 121)
