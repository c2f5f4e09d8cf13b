"""Backward through convolution 3x3, ReLU and max-pooling by 2 for many channels, by the results that were chosen.

Of the four results of a window one has a gradient, and none where the ReLU was: a list of those that have one is made,
and each adds a multiple of a run of 3 x channels floats, a row of a window. The sums stay in registers along a list.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dahl.ops.image_lanes import load_three, store_three
from dahl.ops.operation import FloatArray, IntArray
from dahl.ops.simd import LANES, load, load_splat, multiply_add, splat, store
from dahl.ops.simd_lanes import compress, count_bits, differs
from dahl.starpu.kernel import inline_kernel


@inline_kernel
def _add_row(sums: Any, source: FloatArray, at: int, factor: Any) -> Any:
    return (
        multiply_add(sums[0], load(source, at), factor),
        multiply_add(sums[1], load(source, at + LANES), factor),
        multiply_add(sums[2], load(source, at + 2 * LANES), factor),
    )


@inline_kernel
def _add_multiples(
    target: FloatArray,
    to: int,
    step: int,
    source: FloatArray,
    row: int,
    offsets: IntArray,
    factors: FloatArray,
    items: Any,
    run: int,
) -> None:
    """Add to three runs of floats, `step` apart from `to`, the items' multiples of three runs, `row` apart, of source.

    An item's runs start at its offset, and its factor multiplies them. A run is a multiple of 3 vectors.
    """
    first, last = items
    for part in range(0, run, 3 * LANES):
        out = to + part
        s0, s1, s2 = (
            load_three(target, out),
            load_three(target, out + step),
            load_three(target, out + 2 * step),
        )
        for k in range(first, last):
            at, factor = part + offsets[k], load_splat(factors, k)
            s0 = _add_row(s0, source, at, factor)
            s1 = _add_row(s1, source, at + row, factor)
            s2 = _add_row(s2, source, at + 2 * row, factor)
        store_three(s0, target, out)
        store_three(s1, target, out + step)
        store_three(s2, target, out + 2 * step)


@inline_kernel
def _place(places: IntArray, window: int, filters: int, f: int) -> Any:
    """Row and column (0 or 1) of the largest of a window for a filter."""
    bits = places[window * (filters // LANES) + f // LANES] >> (f % LANES)
    return (bits >> 16) & 1, bits & 1


@inline_kernel
def chosen_weight_gradient(
    x: FloatArray,
    shape: Any,
    dh: FloatArray,
    places: IntArray,
    filters: int,
    offsets: IntArray,
    factors: FloatArray,
    dw: FloatArray,
    db: FloatArray,
) -> None:
    """Add one image's share to dw (F, 9, C) and db (F,).

    x (H, W, C); dh (H', W', F): gradient of the pooled result, 0 where the ReLU was.
    `offsets`, `factors`: scratch for as many items as there are windows.
    """
    channels, height, width = shape
    rows, columns = (height - 2) // 2, (width - 2) // 2
    line, run = width * channels, 3 * channels
    for f in range(filters):
        count = 0
        for i in range(rows):
            for j in range(columns):
                window = i * columns + j
                row, column = _place(places, window, filters, f)
                value = dh[window * filters + f]
                offsets[count] = (2 * i + row) * line + (2 * j + column) * channels
                factors[count] = value
                count += value != 0.0
        for k in range(count):
            db[f] += factors[k]
        _add_multiples(dw, f * 3 * run, run, x, line, offsets, factors, (0, count), run)


@inline_kernel
def chosen_input_gradient(
    dh: FloatArray,
    places: IntArray,
    w: FloatArray,
    filters: int,
    shape: Any,
    offsets: IntArray,
    factors: FloatArray,
    ends: IntArray,
    dx: FloatArray,
) -> None:
    """dx (H, W, C) of one image, from dh (H', W', F) as in `chosen_weight_gradient` and w (F, 9, C).

    `offsets`, `factors`: scratch for an item for each element of dh, the filters and a vector more.
    `ends`: for four of each window.
    """
    channels, height, width = shape
    rows, columns = (height - 2) // 2, (width - 2) // 2
    line, run = width * channels, 3 * channels
    numbers = offsets.view(np.float32)
    zero = splat(np.float32(0.0))
    for f in range(filters):
        offsets[f] = f * 3 * run
    count = filters
    for window in range(rows * columns):
        for result in range(4):
            for f in range(0, filters, LANES):
                value = load(dh, window * filters + f)
                place = np.int64(places[(window * filters + f) // LANES])
                right, under = place if result & 1 else ~place, place if result & 2 else ~place
                bits = differs(value, zero) & right & (under >> 16) & 0xFFFF
                store(compress(value, bits), factors, count)
                store(compress(load(numbers, f), bits), numbers, count)
                count += count_bits(bits)
            ends[4 * window + result] = count
    dx[:] = 0.0
    first = filters
    for window in range(rows * columns):
        i, j = window // columns, window % columns
        for result in range(4):
            last = ends[4 * window + result]
            to = (2 * i + result // 2) * line + (2 * j + result % 2) * channels
            _add_multiples(dx, to, line, w, run, offsets, factors, (first, last), run)
            first = last
