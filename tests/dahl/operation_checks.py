"""Compare a compiled kernel with its float64 reference, and a reference with central differences."""

from __future__ import annotations

import numpy as np

from .direct_context import execute, poison


def as_double(value):
    if isinstance(value, (list, tuple)):
        return [as_double(item) for item in value]
    return value.astype(np.float64) if value.dtype == np.float32 else value


def references(operation, named, **scalars):
    """The operation's own float64 reference on copies of the arrays (by operand name)."""
    inputs = {name: as_double(value) for name, value in named.items()}
    return operation.reference(inputs, {**operation.defaults, **scalars})


def outputs(operation, named, **scalars):
    """Run the compiled kernel on copies; r operands must come back unchanged, w operands start poisoned."""
    arrays, written = [], {}
    for operand in operation.kernel.operands:
        value = named[operand.name]
        if operand.repeated:
            arrays.append([item.copy() for item in value])
        elif operand.mode == "w":
            arrays.append(poison(value.shape, operand.dtype))
        else:
            arrays.append(value.copy())
        if operand.mode != "r":
            written[operand.name] = arrays[-1]
    execute(operation, arrays, **scalars)
    for operand, array in zip(operation.kernel.operands, arrays, strict=True):
        if operand.mode == "r":
            np.testing.assert_array_equal(array, named[operand.name])
    return written


def assert_kernel_matches_reference(operation, named, rtol=2e-5, atol=2e-5, **scalars):
    """Every output within the tolerance of the reference, in float32 of the declared type."""
    expected = references(operation, named, **scalars)
    found = outputs(operation, named, **scalars)
    assert set(found) == set(expected)
    for name, value in found.items():
        scale = max(1.0, float(np.abs(expected[name]).max(initial=0.0)))
        np.testing.assert_allclose(value, expected[name], rtol=rtol, atol=atol * scale, err_msg=name)
    return found


def central_difference(function, at, step=1e-6):
    """Gradient of a scalar function of one float64 array."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        ahead, behind = at.copy(), at.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (function(ahead) - function(behind)) / (2 * step)
    return gradient
