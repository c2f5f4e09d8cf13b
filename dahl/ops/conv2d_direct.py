"""Convolution of stride 1 as vectorised loops over whole rows, for few input channels.

A padded plane of width W is read as one long array:
output (i, j) of a tap (a, b) is at i W + j, its input at (i + a) W + (j + b), a constant distance away.
So a tap is one long loop over many rows, which vectorises well.
The kernel_width - 1 results between two rows are garbage:
forward they are not copied out, backward their gradient is 0.
"""

from __future__ import annotations

from dahl.ops.operation import FloatArray
from dahl.starpu.kernel import inline_kernel

_BLOCK_FLOATS = 4096  # half of a 32 KiB L1 cache: results of one block of rows stay there over all taps


def block_rows(rows: int, width: int) -> int:
    """How many output rows of a padded width are computed together."""
    return max(1, min(rows, _BLOCK_FLOATS // width))


_block_rows = inline_kernel(block_rows)


def padded_floats(channels: int, height: int, width: int) -> int:
    """Scratch for one padded image and one block of its rows."""
    return channels * height * width + block_rows(height, width) * width


@inline_kernel
def pad_image(image: FloatArray, out: FloatArray, height: int, width: int, top: int, left: int) -> None:
    """Copy (C, h, w) into C planes of height x width with zeros around; a negative border crops."""
    channels, rows, columns = image.shape
    for c in range(channels):
        for i in range(height):
            line = out[(c * height + i) * width : (c * height + i + 1) * width]
            source = i - top
            if source < 0 or source >= rows:
                for j in range(width):
                    line[j] = 0.0
            else:
                for j in range(width):
                    k = j - left
                    line[j] = image[c, source, k] if 0 <= k < columns else 0.0


@inline_kernel
def _add_three(out: FloatArray, source: FloatArray, start: int, weights: FloatArray, at: int) -> None:
    n = out.size
    s0, s1, s2 = (
        source[start : start + n],
        source[start + 1 : start + 1 + n],
        source[start + 2 : start + 2 + n],
    )
    w0, w1, w2 = weights[at], weights[at + 1], weights[at + 2]
    for i in range(n):
        out[i] += w0 * s0[i] + w1 * s1[i] + w2 * s2[i]


@inline_kernel
def _add_one(out: FloatArray, source: FloatArray, start: int, weight: float) -> None:
    n = out.size
    values = source[start : start + n]
    for i in range(n):
        out[i] += weight * values[i]


@inline_kernel
def _dot_three(gradient: FloatArray, source: FloatArray, start: int, out: FloatArray, at: int) -> None:
    n = gradient.size
    s0, s1, s2 = (
        source[start : start + n],
        source[start + 1 : start + 1 + n],
        source[start + 2 : start + 2 + n],
    )
    d0 = d1 = d2 = gradient[0] - gradient[0]
    for i in range(n):
        d0 += gradient[i] * s0[i]
        d1 += gradient[i] * s1[i]
        d2 += gradient[i] * s2[i]
    out[at] += d0
    out[at + 1] += d1
    out[at + 2] += d2


@inline_kernel
def _dot_one(gradient: FloatArray, source: FloatArray, start: int, out: FloatArray, at: int) -> None:
    n = gradient.size
    values = source[start : start + n]
    total = gradient[0] - gradient[0]
    for i in range(n):
        total += gradient[i] * values[i]
    out[at] += total


@inline_kernel
def correlate(
    source: FloatArray,
    height: int,
    width: int,
    weights: FloatArray,
    kh: int,
    kw: int,
    out: FloatArray,
    wide: FloatArray,
) -> None:
    """out (F, rows, columns) = planes (C, height, width) correlated with weights (F, C, kh, kw), flat."""
    filters, rows, columns = out.shape
    channels = source.size // (height * width)
    step = _block_rows(rows, width)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        block = wide[: (count - 1) * width + columns]
        for f in range(filters):
            block[:] = 0.0
            for c in range(channels):
                for a in range(kh):
                    start = (c * height + first + a) * width
                    at = ((f * channels + c) * kh + a) * kw
                    if kw == 3:
                        _add_three(block, source, start, weights, at)
                    else:
                        for b in range(kw):
                            _add_one(block, source, start + b, weights[at + b])
            for i in range(count):
                line = out[f, first + i]
                results = block[i * width : i * width + columns]
                for j in range(columns):
                    line[j] = results[j]


@inline_kernel
def _spread(rows_from: FloatArray, first: int, width: int, block: FloatArray) -> None:
    """Lay rows out at the padded width, with zeros between them."""
    columns = rows_from.shape[1]
    block[:] = 0.0
    for start in range(0, block.size, width):
        line = rows_from[first + start // width]
        results = block[start : start + columns]
        for j in range(columns):
            results[j] = line[j]


@inline_kernel
def correlate_gradient(
    source: FloatArray,
    height: int,
    width: int,
    dy: FloatArray,
    dw: FloatArray,
    kh: int,
    kw: int,
    wide: FloatArray,
) -> None:
    """dw (F, C, kh, kw), flat, += the gradient of one image; dy (F, rows, columns), planes as above."""
    filters, rows, columns = dy.shape
    channels = source.size // (height * width)
    step = _block_rows(rows, width)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        block = wide[: (count - 1) * width + columns]
        for f in range(filters):
            _spread(dy[f], first, width, block)
            for c in range(channels):
                for a in range(kh):
                    start = (c * height + first + a) * width
                    at = ((f * channels + c) * kh + a) * kw
                    if kw == 3:
                        _dot_three(block, source, start, dw, at)
                    else:
                        for b in range(kw):
                            _dot_one(block, source, start + b, dw, at + b)


@inline_kernel
def direct_forward(x: FloatArray, w: FloatArray, y: FloatArray, padding: int, scratch: FloatArray) -> None:
    """y = x * w with stride 1."""
    images, channels, height, width = x.shape
    kh, kw = w.shape[2], w.shape[3]
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    size = channels * padded_height * padded_width
    weights = w.reshape(w.size)
    for n in range(images):
        source = x[n].reshape(channels * height * width)
        if padding > 0:
            source = scratch[:size]
            pad_image(x[n], source, padded_height, padded_width, padding, padding)
        correlate(source, padded_height, padded_width, weights, kh, kw, y[n], scratch[size:])


@inline_kernel
def direct_backward_weight(
    x: FloatArray, dy: FloatArray, dw: FloatArray, padding: int, scratch: FloatArray
) -> None:
    """dw of stride 1."""
    images, channels, height, width = x.shape
    kh, kw = dw.shape[2], dw.shape[3]
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    size = channels * padded_height * padded_width
    gradient = dw.reshape(dw.size)
    gradient[:] = 0.0
    for n in range(images):
        source = x[n].reshape(channels * height * width)
        if padding > 0:
            source = scratch[:size]
            pad_image(x[n], source, padded_height, padded_width, padding, padding)
        correlate_gradient(source, padded_height, padded_width, dy[n], gradient, kh, kw, scratch[size:])


@inline_kernel
def direct_backward_input(
    dy: FloatArray, w: FloatArray, dx: FloatArray, padding: int, scratch: FloatArray
) -> None:
    """dx of stride 1: dy, padded to the full size, correlated with the kernel turned by 180 degrees."""
    images, channels, height, width = dx.shape
    filters, kh, kw = w.shape[0], w.shape[2], w.shape[3]
    turned = scratch[: w.size]
    for f in range(filters):
        for c in range(channels):
            for a in range(kh):
                for b in range(kw):
                    turned[((c * filters + f) * kh + kh - 1 - a) * kw + kw - 1 - b] = w[f, c, a, b]
    padded_height, padded_width = height + kh - 1, width + kw - 1
    size = filters * padded_height * padded_width
    source = scratch[w.size : w.size + size]
    for n in range(images):
        pad_image(dy[n], source, padded_height, padded_width, kh - 1 - padding, kw - 1 - padding)
        correlate(source, padded_height, padded_width, turned, kh, kw, dx[n], scratch[w.size + size :])
