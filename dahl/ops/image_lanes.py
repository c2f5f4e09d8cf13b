"""A convolution 3x3, ReLU, max-pooling by 2 and a linear layer on 16 images at a time, forward and backward.

Each value is a vector of 16 floats, one for each image, so that no step needs a shuffle, whatever the channels.
Pooling takes one of four results, so that backward only one of four has a gradient: the input pixels that led to it
are chosen lane by lane, and a quarter of the products is left.
Backward the linear layer's weights sum over images: for them the activations are transposed once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dahl.ops.operation import ByteArray, FloatArray, IntArray, LongArray
from dahl.ops.simd import LANES, load, load_splat, multiply_add, splat, store, sum_lanes
from dahl.ops.simd_lanes import (
    add,
    choose,
    divide,
    exponential,
    gather_bytes,
    greater,
    larger,
    multiply,
    prefetch,
    rectify,
    store_first,
    subtract,
    transpose,
)
from dahl.starpu.kernel import inline_kernel

CLASS_BLOCK = 10
"""Rows of the linear layer that are computed together; there are as many registers for them."""
_CACHE_LINE = 64


@inline_kernel
def gather_lanes(
    images: ByteArray,
    offsets: LongArray,
    mean: FloatArray,
    std: FloatArray,
    x: FloatArray,
) -> None:
    """Normalise the 16 images at `offsets` (first pixel, in bytes) into x (C, H, W, 16).

    Where fewer images are left, a lane repeats one: the gradient of its logits is 0.
    """
    channels, plane = mean.size, images.shape[2] * images.shape[3]
    source = images.reshape(images.size)
    for c in range(channels):
        scale = np.float32(1.0 / (255.0 * std[c]))
        shift = np.float32(-float(mean[c]) / std[c])
        first = c * plane
        if plane >= LANES:
            factor, offset = splat(scale), splat(shift)
            for block in range(0, plane, LANES):
                p = first + min(block, plane - LANES)
                gather_bytes(source, offsets, p, factor, offset, x, p * LANES)
        else:
            for p in range(first, first + plane):
                for n in range(LANES):
                    x[p * LANES + n] = np.float32(source[offsets[n] + p]) * scale + shift


@inline_kernel
def _four(x: FloatArray, at: int) -> Any:
    return load(x, at), load(x, at + LANES), load(x, at + 2 * LANES), load(x, at + 3 * LANES)


@inline_kernel
def _kernel_row(sums: Any, top: Any, bottom: Any, w: FloatArray, at: int) -> Any:
    """Add three taps, which are a row of the kernel, to the four results of a window."""
    s0, s1, s2, s3 = sums
    w0, w1, w2 = load_splat(w, at), load_splat(w, at + 1), load_splat(w, at + 2)
    s0, s1 = multiply_add(s0, top[0], w0), multiply_add(s1, top[1], w0)
    s2, s3 = multiply_add(s2, bottom[0], w0), multiply_add(s3, bottom[1], w0)
    s0, s1 = multiply_add(s0, top[1], w1), multiply_add(s1, top[2], w1)
    s2, s3 = multiply_add(s2, bottom[1], w1), multiply_add(s3, bottom[2], w1)
    s0, s1 = multiply_add(s0, top[2], w2), multiply_add(s1, top[3], w2)
    s2, s3 = multiply_add(s2, bottom[2], w2), multiply_add(s3, bottom[3], w2)
    return s0, s1, s2, s3


@inline_kernel
def pool_window(sums: Any, bias: Any, h: FloatArray, places: IntArray, at: int) -> None:
    """Keep the largest of four, with bias and ReLU, and where it was: 16 bits for the column, 16 for the row."""
    right, under = greater(sums[1], sums[0]), greater(sums[3], sums[2])
    top, bottom = choose(right, sums[1], sums[0]), choose(under, sums[3], sums[2])
    row = greater(bottom, top)
    store(rectify(add(larger(top, bottom), bias)), h, at * LANES)
    places[at] = np.int32((row << 16) | (row & under) | (~row & right & 0xFFFF))


@inline_kernel
def convolve_pool(
    x: FloatArray,
    shape: Any,
    w: FloatArray,
    bias: FloatArray,
    h: FloatArray,
    places: IntArray,
    following: Any,
) -> None:
    """h (F, H', W', 16) = the pooled ReLU of x (C, H, W, 16) convolved with w (F, C, 3, 3), flat, plus bias.

    `following`: the data set flat, and where the next 16 images stand in it, to be fetched into the cache meanwhile.
    """
    channels, height, width = shape
    rows, columns, filters = (height - 2) // 2, (width - 2) // 2, bias.size
    row, plane, taps = width * LANES, height * width * LANES, 9 * channels
    lines = (channels * height * width + _CACHE_LINE - 1) // _CACHE_LINE
    line = 0
    for i in range(rows):
        until = (i + 1) * lines // rows
        while line < until:
            for n in range(following[1].size):
                prefetch(following[0], following[1][n] + line * _CACHE_LINE)
            line += 1
        for f in range(0, filters, 2):
            g = min(f + 1, filters - 1)
            bias_f, bias_g = load_splat(bias, f), load_splat(bias, g)
            for j in range(columns):
                zero = splat(np.float32(0.0))
                s = t = (zero, zero, zero, zero)
                for c in range(channels):
                    at = c * plane + 2 * (i * row + j * LANES)
                    r0, r1, r2, r3 = (
                        _four(x, at),
                        _four(x, at + row),
                        _four(x, at + 2 * row),
                        _four(x, at + 3 * row),
                    )
                    k, m = f * taps + 9 * c, g * taps + 9 * c
                    s, t = _kernel_row(s, r0, r1, w, k), _kernel_row(t, r0, r1, w, m)
                    s, t = _kernel_row(s, r1, r2, w, k + 3), _kernel_row(t, r1, r2, w, m + 3)
                    s, t = _kernel_row(s, r2, r3, w, k + 6), _kernel_row(t, r2, r3, w, m + 6)
                pool_window(s, bias_f, h, places, (f * rows + i) * columns + j)
                pool_window(t, bias_g, h, places, (g * rows + i) * columns + j)


@inline_kernel
def _row_of(first: int, k: int, count: int) -> int:
    return min(first + k, count - 1)


@inline_kernel
def linear_lanes(h: FloatArray, inputs: int, w: FloatArray, bias: FloatArray, logits: FloatArray) -> None:
    """logits (classes, 16) = w (classes, inputs) times h (inputs, 16), plus bias; in blocks of 10 classes."""
    classes = bias.size
    for first in range(0, classes, CLASS_BLOCK):
        c0, c1, c2 = first * inputs, _row_of(first, 1, classes) * inputs, _row_of(first, 2, classes) * inputs
        c3, c4 = _row_of(first, 3, classes) * inputs, _row_of(first, 4, classes) * inputs
        c5, c6 = _row_of(first, 5, classes) * inputs, _row_of(first, 6, classes) * inputs
        c7, c8 = _row_of(first, 7, classes) * inputs, _row_of(first, 8, classes) * inputs
        c9 = _row_of(first, 9, classes) * inputs
        zero = splat(np.float32(0.0))
        y0 = y1 = y2 = y3 = y4 = y5 = y6 = y7 = y8 = y9 = zero
        for p in range(inputs):
            v = load(h, p * LANES)
            y0 = multiply_add(y0, v, load_splat(w, c0 + p))
            y1 = multiply_add(y1, v, load_splat(w, c1 + p))
            y2 = multiply_add(y2, v, load_splat(w, c2 + p))
            y3 = multiply_add(y3, v, load_splat(w, c3 + p))
            y4 = multiply_add(y4, v, load_splat(w, c4 + p))
            y5 = multiply_add(y5, v, load_splat(w, c5 + p))
            y6 = multiply_add(y6, v, load_splat(w, c6 + p))
            y7 = multiply_add(y7, v, load_splat(w, c7 + p))
            y8 = multiply_add(y8, v, load_splat(w, c8 + p))
            y9 = multiply_add(y9, v, load_splat(w, c9 + p))
        found = (y0, y1, y2, y3, y4, y5, y6, y7, y8, y9)
        for k in range(min(CLASS_BLOCK, classes - first)):
            store(add(found[k], load_splat(bias, first + k)), logits, (first + k) * LANES)


@inline_kernel
def cross_entropy_lanes(
    logits: FloatArray,
    classes: int,
    labels: IntArray,
    chosen: LongArray,
    count: int,
    scale: float,
    lane: FloatArray,
) -> float:
    """Return the sum of the losses of the first `count` images; logits become scale * (softmax - one_hot).

    One logarithm of the product of the sums instead of one for each image: `classes`^16 is far below 1e308.
    `chosen`: the images' numbers in the data set. `lane`: a vector of scratch.
    """
    one = np.float32(scale)
    largest = load(logits, 0)
    for c in range(1, classes):
        largest = larger(largest, load(logits, c * LANES))
    loss = 0.0
    store(largest, lane, 0)
    for n in range(count):
        loss += lane[n] - logits[labels[chosen[n]] * LANES + n]
    total = splat(np.float32(0.0))
    for c in range(classes):
        power = exponential(subtract(load(logits, c * LANES), largest))
        store(power, logits, c * LANES)
        total = add(total, power)
    store(total, lane, 0)
    product = 1.0
    for n in range(count):
        product *= lane[n]
    for n in range(LANES):
        lane[n] = one if n < count else 0.0
    factor = divide(load(lane, 0), total)
    for c in range(classes):
        store(multiply(load(logits, c * LANES), factor), logits, c * LANES)
    for n in range(count):
        logits[labels[chosen[n]] * LANES + n] -= one
    return loss + math.log(product)


@inline_kernel
def transpose_lanes(h: FloatArray, inputs: int, out: FloatArray) -> None:
    """out (16, S) = h (inputs, 16) transposed, S = `inputs` rounded up to 16; what is beyond is undefined."""
    stride = (inputs + LANES - 1) // LANES * LANES
    for p in range(0, inputs, LANES):
        transpose(h, p * LANES, LANES, out, p, stride)


@inline_kernel
def linear_weight_gradient(
    transposed: FloatArray,
    inputs: int,
    dlogits: FloatArray,
    count: int,
    dw: FloatArray,
    db: FloatArray,
) -> None:
    """dw (classes, inputs), flat, = the sum over `count` images of dlogits times activations; db that of dlogits."""
    classes = db.size
    stride = (inputs + LANES - 1) // LANES * LANES
    for first in range(0, classes, CLASS_BLOCK):
        c0, c1, c2 = first * LANES, _row_of(first, 1, classes) * LANES, _row_of(first, 2, classes) * LANES
        c3, c4 = _row_of(first, 3, classes) * LANES, _row_of(first, 4, classes) * LANES
        c5, c6 = _row_of(first, 5, classes) * LANES, _row_of(first, 6, classes) * LANES
        c7, c8 = _row_of(first, 7, classes) * LANES, _row_of(first, 8, classes) * LANES
        c9 = _row_of(first, 9, classes) * LANES
        for p in range(0, inputs, LANES):
            zero = splat(np.float32(0.0))
            y0 = y1 = y2 = y3 = y4 = y5 = y6 = y7 = y8 = y9 = zero
            for n in range(count):
                v = load(transposed, n * stride + p)
                y0 = multiply_add(y0, v, load_splat(dlogits, c0 + n))
                y1 = multiply_add(y1, v, load_splat(dlogits, c1 + n))
                y2 = multiply_add(y2, v, load_splat(dlogits, c2 + n))
                y3 = multiply_add(y3, v, load_splat(dlogits, c3 + n))
                y4 = multiply_add(y4, v, load_splat(dlogits, c4 + n))
                y5 = multiply_add(y5, v, load_splat(dlogits, c5 + n))
                y6 = multiply_add(y6, v, load_splat(dlogits, c6 + n))
                y7 = multiply_add(y7, v, load_splat(dlogits, c7 + n))
                y8 = multiply_add(y8, v, load_splat(dlogits, c8 + n))
                y9 = multiply_add(y9, v, load_splat(dlogits, c9 + n))
            found = (y0, y1, y2, y3, y4, y5, y6, y7, y8, y9)
            width = min(LANES, inputs - p)
            for k in range(min(CLASS_BLOCK, classes - first)):
                store_first(found[k], dw, (first + k) * inputs + p, width)
    for c in range(classes):
        db[c] = sum_lanes(load(dlogits, c * LANES))


@inline_kernel
def input_gradient_lanes(
    h: FloatArray, w: FloatArray, inputs: int, first: int, dlogits: FloatArray, classes: int, g: FloatArray
) -> None:
    """g = w^T dlogits for as many inputs from `first` on as g has vectors, 0 where the ReLU was."""
    for c in range(0, classes, CLASS_BLOCK):
        d0, d1, d2 = load(dlogits, c * LANES), load(dlogits, (c + 1) * LANES), load(dlogits, (c + 2) * LANES)
        d3, d4 = load(dlogits, (c + 3) * LANES), load(dlogits, (c + 4) * LANES)
        d5, d6 = load(dlogits, (c + 5) * LANES), load(dlogits, (c + 6) * LANES)
        d7, d8, d9 = (
            load(dlogits, (c + 7) * LANES),
            load(dlogits, (c + 8) * LANES),
            load(dlogits, (c + 9) * LANES),
        )
        c0, c1, c2 = c * inputs, _row_of(c, 1, classes) * inputs, _row_of(c, 2, classes) * inputs
        c3, c4 = _row_of(c, 3, classes) * inputs, _row_of(c, 4, classes) * inputs
        c5, c6 = _row_of(c, 5, classes) * inputs, _row_of(c, 6, classes) * inputs
        c7, c8 = _row_of(c, 7, classes) * inputs, _row_of(c, 8, classes) * inputs
        c9 = _row_of(c, 9, classes) * inputs
        zero = splat(np.float32(0.0))
        for j in range(g.size // LANES):
            p = first + j
            total = zero if c == 0 else load(g, j * LANES)
            total = multiply_add(total, d0, load_splat(w, c0 + p))
            other = multiply_add(zero, d1, load_splat(w, c1 + p))
            total = multiply_add(total, d2, load_splat(w, c2 + p))
            other = multiply_add(other, d3, load_splat(w, c3 + p))
            total = multiply_add(total, d4, load_splat(w, c4 + p))
            other = multiply_add(other, d5, load_splat(w, c5 + p))
            total = multiply_add(total, d6, load_splat(w, c6 + p))
            other = multiply_add(other, d7, load_splat(w, c7 + p))
            total = multiply_add(total, d8, load_splat(w, c8 + p))
            other = multiply_add(other, d9, load_splat(w, c9 + p))
            total = add(total, other)
            if c + CLASS_BLOCK >= classes:
                total = choose(greater(load(h, p * LANES), zero), total, zero)
            store(total, g, j * LANES)


@inline_kernel
def _chosen_row(x: FloatArray, at: int, right: int) -> Any:
    """Three neighbours in a row of four, from the second on in the lanes whose largest stood to the right."""
    a, b, c, d = _four(x, at)
    return choose(right, b, a), choose(right, c, b), choose(right, d, c)


@inline_kernel
def add_chosen(sums: Any, g: Any, under: int, top: Any, bottom: Any) -> Any:
    return (
        multiply_add(sums[0], choose(under, bottom[0], top[0]), g),
        multiply_add(sums[1], choose(under, bottom[1], top[1]), g),
        multiply_add(sums[2], choose(under, bottom[2], top[2]), g),
    )


@inline_kernel
def load_three(sums: FloatArray, at: int) -> Any:
    return load(sums, at), load(sums, at + LANES), load(sums, at + 2 * LANES)


@inline_kernel
def store_three(three: Any, sums: FloatArray, at: int) -> None:
    store(three[0], sums, at)
    store(three[1], sums, at + LANES)
    store(three[2], sums, at + 2 * LANES)


@inline_kernel
def convolve_pool_gradient(
    x: FloatArray,
    shape: Any,
    h: FloatArray,
    places: IntArray,
    w: FloatArray,
    dlogits: FloatArray,
    classes: int,
    g: FloatArray,
    sums: FloatArray,
    dw: FloatArray,
    db: FloatArray,
) -> None:
    """dw (F, C, 3, 3), flat, and db (F,) of `convolve_pool`, through the linear layer w (classes, F H' W').

    `dlogits`: rounded up to blocks of 10 classes with zeros. `g`: H' vectors of scratch; `sums`: one for each weight
    and bias.
    """
    channels, height, width = shape
    rows, columns, filters = (height - 2) // 2, (width - 2) // 2, db.size
    row, plane = width * LANES, height * width * LANES
    inputs = filters * rows * columns
    for k in range(sums.size):
        sums[k] = 0.0
    for i in range(rows):
        for f in range(filters):
            first = (f * rows + i) * columns
            input_gradient_lanes(h, w, inputs, first, dlogits, classes, g)
            at_bias = (dw.size + f) * LANES
            bias = load(sums, at_bias)
            for j in range(columns):
                bias = add(bias, load(g, j * LANES))
            store(bias, sums, at_bias)
            for c in range(channels):
                start, k = c * plane + 2 * i * row, (f * channels + c) * 9 * LANES
                s0, s1, s2 = (
                    load_three(sums, k),
                    load_three(sums, k + 3 * LANES),
                    load_three(sums, k + 6 * LANES),
                )
                for j in range(columns):
                    at, gradient, place = (
                        start + 2 * j * LANES,
                        load(g, j * LANES),
                        np.int64(places[first + j]),
                    )
                    under = place >> 16
                    r0, r1 = _chosen_row(x, at, place), _chosen_row(x, at + row, place)
                    r2, r3 = _chosen_row(x, at + 2 * row, place), _chosen_row(x, at + 3 * row, place)
                    s0 = add_chosen(s0, gradient, under, r0, r1)
                    s1 = add_chosen(s1, gradient, under, r1, r2)
                    s2 = add_chosen(s2, gradient, under, r2, r3)
                store_three(s0, sums, k)
                store_three(s1, sums, k + 3 * LANES)
                store_three(s2, sums, k + 6 * LANES)
    for k in range(dw.size):
        dw[k] = sum_lanes(load(sums, k * LANES))
    for f in range(filters):
        db[f] = sum_lanes(load(sums, (dw.size + f) * LANES))
