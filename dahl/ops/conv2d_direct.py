"""Convolution of stride 1 as loops over vectors of output pixels, for few input channels.

A vector is 16 neighbours of an output row of at least 16 pixels.
The last one of a row overlaps the one before it, so that no rest loop is needed:
forward the overlap is computed twice, backward its gradients count as 0 the second time.
Four filters share every load of the input; where fewer are left, the last one is computed again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.operation import FloatArray, Shape
from dahl.ops.simd import LANES, keep_last, load, load_splat, multiply_add, splat, store, sum_lanes
from dahl.starpu.kernel import inline_kernel


@inline_kernel
def _pad_image(image: FloatArray, out: FloatArray, height: int, width: int, top: int, left: int) -> None:
    """Copy (C, h, w) into C planes of height x width with zeros around; a negative border crops."""
    channels, rows, columns = image.shape
    out[: channels * height * width] = 0.0
    first, last = max(left, 0), min(left + columns, width)
    for c in range(channels):
        for i in range(max(top, 0), min(top + rows, height)):
            start = (c * height + i) * width
            line, values = out[start + first : start + last], image[c, i - top, first - left : last - left]
            for j in range(line.size):
                line[j] = values[j]


@inline_kernel
def _add_pair(total: Any, pair: Any, weight: Any) -> Any:
    return multiply_add(total[0], pair[0], weight), multiply_add(total[1], pair[1], weight)


@inline_kernel
def _store_pair(total: Any, out: FloatArray, at: int, right: int) -> None:
    store(total[0], out, at)
    store(total[1], out, at + right)


@inline_kernel
def _four_filters(
    source: FloatArray,
    at: int,
    right: int,
    row: int,
    plane: int,
    w: FloatArray,
    f: int,
    out: FloatArray,
    pixel: int,
) -> None:
    """16 output pixels, and the 16 that are `right` pixels further, of the filters f to f + 3.

    `at`: offset of their first input in `source`, whose rows and planes are `row` and `plane` floats apart.
    `pixel`: offset of the first of them in a plane of `out`.
    """
    filters, channels, kh, kw = w.shape
    taps, size = channels * kh * kw, out.shape[1] * out.shape[2]
    f0, f1, f2, f3 = f, min(f + 1, filters - 1), min(f + 2, filters - 1), min(f + 3, filters - 1)
    zero = splat(np.float32(0.0))
    y0 = y1 = y2 = y3 = (zero, zero)
    tap = 0
    for c in range(channels):
        for a in range(kh):
            start = at + c * plane + a * row
            for b in range(kw):
                x = (load(source, start + b), load(source, start + b + right))
                y0 = _add_pair(y0, x, load_splat(w, f0 * taps + tap))
                y1 = _add_pair(y1, x, load_splat(w, f1 * taps + tap))
                y2 = _add_pair(y2, x, load_splat(w, f2 * taps + tap))
                y3 = _add_pair(y3, x, load_splat(w, f3 * taps + tap))
                tap += 1
    _store_pair(y0, out, f0 * size + pixel, right)
    _store_pair(y1, out, f1 * size + pixel, right)
    _store_pair(y2, out, f2 * size + pixel, right)
    _store_pair(y3, out, f3 * size + pixel, right)


@inline_kernel
def _correlate(source: FloatArray, height: int, width: int, w: FloatArray, out: FloatArray) -> None:
    """out (F, rows, columns) = planes of height x width in `source` correlated with w (F, C, kh, kw)."""
    filters, rows, columns = out.shape
    last = columns - LANES
    for f in range(0, filters, 4):
        for i in range(rows):
            for block in range(0, columns, 2 * LANES):
                j = min(block, last)
                right = min(block + LANES, last) - j
                at, pixel = i * width + j, i * columns + j
                _four_filters(source, at, right, width, height * width, w, f, out, pixel)


@inline_kernel
def _load_three(sums: FloatArray, first: int, second: int, third: int) -> Any:
    return load(sums, first * LANES), load(sums, second * LANES), load(sums, third * LANES)


@inline_kernel
def _store_three(three: Any, sums: FloatArray, first: int, second: int, third: int) -> None:
    store(three[0], sums, first * LANES)
    store(three[1], sums, second * LANES)
    store(three[2], sums, third * LANES)


@inline_kernel
def _add_three(sums: Any, d: Any, x: Any) -> Any:
    return multiply_add(sums[0], d, x[0]), multiply_add(sums[1], d, x[1]), multiply_add(sums[2], d, x[2])


@inline_kernel
def _add_gradients(
    source: FloatArray,
    start: int,
    width: int,
    dy: FloatArray,
    f: int,
    taps: int,
    t: Any,
    b: Any,
    sums: FloatArray,
) -> None:
    """Add one image to the vectors in `sums` of the filters f to f + 3 and three taps of a kernel's row.

    `start`: offset of that kernel row's first input in `source`; `t`: the taps' numbers, `b`: their columns.
    """
    filters, rows, columns = dy.shape
    plane = rows * columns
    f0, f1, f2, f3 = f, min(f + 1, filters - 1), min(f + 2, filters - 1), min(f + 3, filters - 1)
    s0 = _load_three(sums, f0 * taps + t[0], f0 * taps + t[1], f0 * taps + t[2])
    s1 = _load_three(sums, f1 * taps + t[0], f1 * taps + t[1], f1 * taps + t[2])
    s2 = _load_three(sums, f2 * taps + t[0], f2 * taps + t[1], f2 * taps + t[2])
    s3 = _load_three(sums, f3 * taps + t[0], f3 * taps + t[1], f3 * taps + t[2])
    for i in range(rows):
        for block in range(0, columns, LANES):
            j, count = min(block, columns - LANES), min(LANES, columns - block)
            pixel, at = i * columns + j, start + i * width + j
            x = load(source, at + b[0]), load(source, at + b[1]), load(source, at + b[2])
            s0 = _add_three(s0, keep_last(load(dy, f0 * plane + pixel), count), x)
            s1 = _add_three(s1, keep_last(load(dy, f1 * plane + pixel), count), x)
            s2 = _add_three(s2, keep_last(load(dy, f2 * plane + pixel), count), x)
            s3 = _add_three(s3, keep_last(load(dy, f3 * plane + pixel), count), x)
    _store_three(s0, sums, f0 * taps + t[0], f0 * taps + t[1], f0 * taps + t[2])
    _store_three(s1, sums, f1 * taps + t[0], f1 * taps + t[1], f1 * taps + t[2])
    _store_three(s2, sums, f2 * taps + t[0], f2 * taps + t[1], f2 * taps + t[2])
    _store_three(s3, sums, f3 * taps + t[0], f3 * taps + t[1], f3 * taps + t[2])


@inline_kernel
def _correlate_gradient(
    source: FloatArray, height: int, width: int, dy: FloatArray, kernel: Any, sums: FloatArray
) -> None:
    """Add the gradient of one image to the vectors in `sums`; kernel: (C, kh, kw)."""
    channels, kh, kw = kernel
    for f in range(0, dy.shape[0], 4):
        for c in range(channels):
            for a in range(kh):
                start, tap = (c * height + a) * width, (c * kh + a) * kw
                for first in range(0, kw, 3):
                    b = first, min(first + 1, kw - 1), min(first + 2, kw - 1)
                    t = tap + b[0], tap + b[1], tap + b[2]
                    _add_gradients(source, start, width, dy, f, channels * kh * kw, t, b, sums)


def direct_forward_floats(image: Shape, padding: int) -> int:
    """Scratch of `direct_forward`: one padded image."""
    channels, height, width = image
    return channels * (height + 2 * padding) * (width + 2 * padding)


@inline_kernel
def direct_forward(x: FloatArray, w: FloatArray, y: FloatArray, padding: int, scratch: FloatArray) -> None:
    """y = x * w with stride 1."""
    images, channels, height, width = x.shape
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    for n in range(images):
        source = x[n].reshape(channels * height * width)
        if padding > 0:
            source = scratch[: channels * padded_height * padded_width]
            _pad_image(x[n], source, padded_height, padded_width, padding, padding)
        _correlate(source, padded_height, padded_width, w, y[n])


def direct_backward_input_floats(weights: int, filters: int, height: int, width: int) -> int:
    """Scratch of `direct_backward_input`: the turned kernel and one image of gradients of height x width."""
    return weights + filters * height * width


@inline_kernel
def direct_backward_input(
    dy: FloatArray, w: FloatArray, dx: FloatArray, padding: int, scratch: FloatArray
) -> None:
    """dx of stride 1: dy, padded to the full size, correlated with the kernel turned by 180 degrees."""
    images, channels, height, width = dx.shape
    filters, kh, kw = w.shape[0], w.shape[2], w.shape[3]
    turned = scratch[: w.size].reshape(channels, filters, kh, kw)
    for f in range(filters):
        for c in range(channels):
            for a in range(kh):
                for b in range(kw):
                    turned[c, f, kh - 1 - a, kw - 1 - b] = w[f, c, a, b]
    padded_height, padded_width = height + kh - 1, width + kw - 1
    source = scratch[w.size : w.size + filters * padded_height * padded_width]
    for n in range(images):
        _pad_image(dy[n], source, padded_height, padded_width, kh - 1 - padding, kw - 1 - padding)
        _correlate(source, padded_height, padded_width, turned, dx[n])


def direct_backward_weight_floats(weights: int, image: Shape, padding: int) -> int:
    """Scratch of `direct_backward_weight`: a vector of sums per weight, and one padded image."""
    return weights * LANES + direct_forward_floats(image, padding)


@inline_kernel
def direct_backward_weight(
    x: FloatArray, dy: FloatArray, dw: FloatArray, padding: int, scratch: FloatArray
) -> None:
    """dw of stride 1."""
    images, channels, height, width = x.shape
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    sums = scratch[: dw.size * LANES]
    sums[:] = 0.0
    for n in range(images):
        source = x[n].reshape(channels * height * width)
        if padding > 0:
            source = scratch[sums.size : sums.size + channels * padded_height * padded_width]
            _pad_image(x[n], source, padded_height, padded_width, padding, padding)
        _correlate_gradient(source, padded_height, padded_width, dy[n], dw.shape[1:], sums)
    gradient = dw.reshape(dw.size)
    for k in range(gradient.size):
        gradient[k] = sum_lanes(load(sums, k * LANES))
