"""Convolution 3x3, ReLU and max-pooling by 2 on vectors of 16 channels.

Activations are (rows, columns, channels), so that a vector is 16 neighbouring channels and a row of a window is one
run of floats. Filters come in multiples of 16. The results that pooling drops are the only ones that are not kept,
and those that no window covers are not computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.image_lanes import add_chosen, load_three, pool_window, store_three
from dahl.ops.operation import FloatArray, IntArray
from dahl.ops.simd import LANES, load, load_splat, multiply_add, splat, store
from dahl.ops.simd_lanes import add, choose, greater
from dahl.starpu.kernel import inline_kernel


@inline_kernel
def pack_taps(w: FloatArray, filters: int, channels: int, out: FloatArray) -> None:
    """out (9, channels, filters) = w (filters, channels, 3, 3), both flat."""
    for f in range(filters):
        for c in range(channels):
            for tap in range(9):
                out[(tap * channels + c) * filters + f] = w[(f * channels + c) * 9 + tap]


@inline_kernel
def pack_filters(w: FloatArray, filters: int, channels: int, out: FloatArray) -> None:
    """out (filters, 9, channels) = w (filters, channels, 3, 3), both flat."""
    for f in range(filters):
        for c in range(channels):
            for tap in range(9):
                out[(f * 9 + tap) * channels + c] = w[(f * channels + c) * 9 + tap]


@inline_kernel
def unpack_filters(source: FloatArray, filters: int, channels: int, w: FloatArray) -> None:
    """The reverse of `pack_filters`."""
    for f in range(filters):
        for c in range(channels):
            for tap in range(9):
                w[(f * channels + c) * 9 + tap] = source[(f * 9 + tap) * channels + c]


@inline_kernel
def _add_pixel(sums: Any, x: Any, w: Any) -> Any:
    return multiply_add(sums[0], x, w[0]), multiply_add(sums[1], x, w[1])


@inline_kernel
def _window(x: FloatArray, at: int, steps: Any, channels: int, w: FloatArray, taps: Any, second: int) -> Any:
    """The four results of a window of two images for two vectors of filters, as pairs of vectors.

    `at`: offset of the window's first pixel, `second` floats before that of the other image.
    `steps`: floats from one row, column and channel to the next. `taps`: offsets of the two vectors of the first tap,
    and floats to the next one.
    """
    under, right, channel = steps
    zero = splat(np.float32(0.0))
    a = b = c = d = p = q = r = s = (zero, zero)
    k = 0
    for tap in range(9):
        start = at + tap // 3 * under + tap % 3 * right
        for _ in range(channels):
            weights = load(w, taps[0] + k), load(w, taps[1] + k)
            a = _add_pixel(a, load_splat(x, start), weights)
            b = _add_pixel(b, load_splat(x, start + right), weights)
            c = _add_pixel(c, load_splat(x, start + under), weights)
            d = _add_pixel(d, load_splat(x, start + under + right), weights)
            other = start + second
            p = _add_pixel(p, load_splat(x, other), weights)
            q = _add_pixel(q, load_splat(x, other + right), weights)
            r = _add_pixel(r, load_splat(x, other + under), weights)
            s = _add_pixel(s, load_splat(x, other + under + right), weights)
            k += taps[2]
            start += channel
    return a, b, c, d, p, q, r, s


@inline_kernel
def convolve_pool_channels(
    x: FloatArray,
    count: int,
    shape: Any,
    steps: Any,
    w: FloatArray,
    bias: FloatArray,
    h: FloatArray,
    places: IntArray,
) -> None:
    """h (count, H', W', F) = the pooled ReLU of x convolved with w (9, C, F), flat, plus bias (F,).

    `shape`: channels, height, width; `steps`: floats of x from one image, row, column and channel to the next.
    """
    channels, height, width = shape
    rows, columns, filters = (height - 2) // 2, (width - 2) // 2, bias.size
    vectors = filters // LANES
    for n in range(0, count, 2):
        other = min(n + 1, count - 1)
        second = (other - n) * steps[0]
        for i in range(rows):
            for f in range(0, vectors, 2):
                g = min(f + 1, vectors - 1)
                taps, bias_f, bias_g = (
                    (f * LANES, g * LANES, filters),
                    load(bias, f * LANES),
                    load(bias, g * LANES),
                )
                for j in range(columns):
                    at = n * steps[0] + 2 * (i * steps[1] + j * steps[2])
                    a, b, c, d, p, q, r, s = _window(x, at, steps[1:], channels, w, taps, second)
                    first = ((n * rows + i) * columns + j) * vectors
                    pool_window((a[0], b[0], c[0], d[0]), bias_f, h, places, first + f)
                    pool_window((a[1], b[1], c[1], d[1]), bias_g, h, places, first + g)
                    first += (other - n) * rows * columns * vectors
                    pool_window((p[0], q[0], r[0], s[0]), bias_f, h, places, first + f)
                    pool_window((p[1], q[1], r[1], s[1]), bias_g, h, places, first + g)


@inline_kernel
def _chosen_pixels(x: FloatArray, at: int, right: int) -> Any:
    """Three neighbours of a row of four pixels, from the second on in the lanes whose largest stood to the right."""
    a, b, c, d = load_splat(x, at), load_splat(x, at + 1), load_splat(x, at + 2), load_splat(x, at + 3)
    return choose(right, b, a), choose(right, c, b), choose(right, d, c)


@inline_kernel
def pixel_weight_gradient(
    x: FloatArray, shape: Any, dh: FloatArray, h: FloatArray, places: IntArray, sums: FloatArray
) -> None:
    """Add one image's share to the gradients of weights, (F / 16, C, 9, 16), and biases, (F / 16, 16), in `sums`.

    x (C, H, W); dh, h (H', W', F): gradient and value of the pooled ReLU.
    """
    channels, height, width = shape
    rows, columns = (height - 2) // 2, (width - 2) // 2
    vectors = places.size // (rows * columns)
    zero = splat(np.float32(0.0))
    for f in range(vectors):
        at_bias = (vectors * channels * 9 + f) * LANES
        for c in range(channels):
            k = (f * channels + c) * 9 * LANES
            bias = load(sums, at_bias)
            s0, s1, s2 = load_three(sums, k), load_three(sums, k + 3 * LANES), load_three(sums, k + 6 * LANES)
            for i in range(rows):
                for j in range(columns):
                    one = (i * columns + j) * vectors + f
                    at, place = (c * height + 2 * i) * width + 2 * j, np.int64(places[one])
                    g = choose(greater(load(h, one * LANES), zero), load(dh, one * LANES), zero)
                    under = place >> 16
                    r0, r1 = _chosen_pixels(x, at, place), _chosen_pixels(x, at + width, place)
                    r2, r3 = (
                        _chosen_pixels(x, at + 2 * width, place),
                        _chosen_pixels(x, at + 3 * width, place),
                    )
                    s0 = add_chosen(s0, g, under, r0, r1)
                    s1 = add_chosen(s1, g, under, r1, r2)
                    s2 = add_chosen(s2, g, under, r2, r3)
                    bias = add(bias, g)
            store_three(s0, sums, k)
            store_three(s1, sums, k + 3 * LANES)
            store_three(s2, sums, k + 6 * LANES)
            if c == 0:
                store(bias, sums, at_bias)


@inline_kernel
def unpack_sums(sums: FloatArray, filters: int, channels: int, dw: FloatArray, db: FloatArray) -> None:
    """dw (filters, channels, 3, 3), flat, and db from the sums of `pixel_weight_gradient`."""
    for f in range(filters):
        vector, lane = f // LANES, f % LANES
        for c in range(channels):
            for tap in range(9):
                start = ((vector * channels + c) * 9 + tap) * LANES
                dw[(f * channels + c) * 9 + tap] = sums[start + lane]
        db[f] = sums[(filters // LANES * channels * 9 + vector) * LANES + lane]
