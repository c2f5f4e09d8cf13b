import numpy as np
import pytest

from dahl.ops import LINEAR, LINEAR_BACKWARD_INPUT, LINEAR_BACKWARD_WEIGHT, ShapeError

from .operation_checks import assert_kernel_matches_reference, central_difference, outputs


def arrays(count, inputs, units):
    rng = np.random.default_rng(0)
    shapes = ((count, inputs), (units, inputs), (count, units))
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


@pytest.mark.parametrize(
    ("count", "inputs", "units"), [(16, 676, 10), (1, 1, 1), (3, 7, 5), (17, 130, 129), (1, 33, 2)]
)
def test_the_kernels_agree_with_float64(count, inputs, units):
    x, w, dy = arrays(count, inputs, units)
    assert_kernel_matches_reference(LINEAR, {"x": x, "w": w, "y": dy})
    assert_kernel_matches_reference(LINEAR_BACKWARD_INPUT, {"dy": dy, "w": w, "dx": x})
    assert_kernel_matches_reference(LINEAR_BACKWARD_WEIGHT, {"x": x, "dy": dy, "dw": w})


def test_the_gradients_are_central_differences():
    x, w, dy = (value.astype(np.float64) for value in arrays(3, 4, 2))

    def loss(inputs, weights):
        return (LINEAR.reference({"x": inputs, "w": weights}, {})["y"] * dy).sum()

    dx = LINEAR_BACKWARD_INPUT.reference({"dy": dy, "w": w}, {})["dx"]
    dw = LINEAR_BACKWARD_WEIGHT.reference({"x": x, "dy": dy}, {})["dw"]
    np.testing.assert_allclose(dx, central_difference(lambda value: loss(value, w), x), atol=1e-7)
    np.testing.assert_allclose(dw, central_difference(lambda value: loss(x, value), w), atol=1e-7)


def test_a_nan_reaches_its_row_and_no_other():
    x, w, y = arrays(5, 8, 3)
    x[2, 4] = np.nan
    found = outputs(LINEAR, {"x": x, "w": w, "y": y})["y"]
    assert np.isnan(found[2]).all()
    assert np.isfinite(np.delete(found, 2, axis=0)).all()


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match="linear: w is 3x9 where x needs 3x8"):
        LINEAR.check({"x": (5, 8), "w": (3, 9), "y": (5, 3)}, {})
    with pytest.raises(ShapeError, match="linear: y is 5x4 where x with w needs 5x3"):
        LINEAR.check({"x": (5, 8), "w": (3, 8), "y": (5, 4)}, {})


def test_the_cost_counts_a_multiplication_and_an_addition():
    cost = LINEAR.cost({"x": (16, 1600), "w": (128, 1600), "y": (16, 128)}, {})
    assert cost.flops == 2 * 16 * 1600 * 128
    assert cost.bytes == 4 * (16 * 1600 + 128 * 1600 + 16 * 128)
