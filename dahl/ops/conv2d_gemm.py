"""Convolution as matrix products: blocks of rows unfolded (im2col) in scratch memory, then SGEMM.

Inside a block the channel is the fastest index (rows, columns, channels),
so that one output pixel unfolds into kernel_height runs of kernel_width * channels floats.
The results need no transpose: BLAS reads the unfolded block transposed while it packs it.
A block is as many whole images, or rows of one image, as fit in `_BLOCK_FLOATS`,
so that scratch does not grow with the tile.
"""

from __future__ import annotations

from dahl.ops.blas import PLAIN, TRANSPOSED, sgemm
from dahl.ops.operation import FloatArray
from dahl.starpu.kernel import inline_kernel

_BLOCK_FLOATS = 128 * 1024  # 512 KiB: half of a usual L2 cache


def block_rows(images: int, rows: int, columns: int, taps: int) -> int:
    """Output rows, counted through all images of the tile, that are unfolded together."""
    fitting = max(1, _BLOCK_FLOATS // (columns * taps))
    if fitting >= rows:
        fitting = fitting // rows * rows
    return min(fitting, images * rows)


_block_rows = inline_kernel(block_rows)


def gemm_floats(
    images: int,
    channels: int,
    filters: int,
    out: tuple[int, int],
    kernel: tuple[int, int],
    width: int,
    stride: int,
) -> int:
    """Scratch: weights, unfolded block, results of a block, and its input rows at the padded width."""
    taps = channels * kernel[0] * kernel[1]
    rows = block_rows(images, out[0], out[1], taps)
    pixels = rows * out[1]
    input_rows = (min(rows, out[0]) - 1) * stride + kernel[0]
    return filters * taps + pixels * taps + filters * pixels + input_rows * width * channels


@inline_kernel
def _weights_channels_last(w: FloatArray, out: FloatArray) -> None:
    filters, channels, kh, kw = w.shape
    at = 0
    for f in range(filters):
        for a in range(kh):
            for b in range(kw):
                for c in range(channels):
                    out[at] = w[f, c, a, b]
                    at += 1


@inline_kernel
def _weights_channels_first(source: FloatArray, w: FloatArray) -> None:
    filters, channels, kh, kw = w.shape
    at = 0
    for f in range(filters):
        for a in range(kh):
            for b in range(kw):
                for c in range(channels):
                    w[f, c, a, b] = source[at]
                    at += 1


@inline_kernel
def _load_rows(image: FloatArray, first: int, padding: int, rows: int, width: int, out: FloatArray) -> None:
    """Rows `first`... of the padded image (C, H, W) into (rows, width, C), with zeros where it is padded."""
    channels, height, columns = image.shape
    for r in range(rows):
        line = out[r * width * channels : (r + 1) * width * channels]
        source = first + r - padding
        if source < 0 or source >= height:
            line[:] = 0.0
            continue
        line[: padding * channels] = 0.0
        line[(padding + columns) * channels :] = 0.0
        inner = line[padding * channels : (padding + columns) * channels].reshape(columns, channels)
        for c in range(channels):
            values = image[c, source]
            for j in range(columns):
                inner[j, c] = values[j]


@inline_kernel
def _add_rows(source: FloatArray, first: int, padding: int, rows: int, width: int, image: FloatArray) -> None:
    """The reverse of `_load_rows`: add (rows, width, C) to the image's own rows."""
    channels, height, columns = image.shape
    for r in range(rows):
        target = first + r - padding
        if target < 0 or target >= height:
            continue
        start = (r * width + padding) * channels
        inner = source[start : start + columns * channels].reshape(columns, channels)
        for c in range(channels):
            values = image[c, target]
            for j in range(columns):
                values[j] += inner[j, c]


@inline_kernel
def _unfold(
    source: FloatArray,
    width: int,
    channels: int,
    kh: int,
    kw: int,
    stride: int,
    rows: int,
    columns: int,
    out: FloatArray,
) -> None:
    """(input rows, width, C) -> (rows * columns, kh * kw * C)."""
    run = kw * channels
    at = 0
    for i in range(rows):
        for j in range(columns):
            for a in range(kh):
                start = ((i * stride + a) * width + j * stride) * channels
                values, target = source[start : start + run], out[at : at + run]
                for k in range(run):
                    target[k] = values[k]
                at += run


@inline_kernel
def _fold(
    source: FloatArray,
    width: int,
    channels: int,
    kh: int,
    kw: int,
    stride: int,
    rows: int,
    columns: int,
    out: FloatArray,
) -> None:
    """The reverse of `_unfold`: add (rows * columns, kh * kw * C) to (input rows, width, C)."""
    run = kw * channels
    at = 0
    for i in range(rows):
        for j in range(columns):
            for a in range(kh):
                start = ((i * stride + a) * width + j * stride) * channels
                values, target = source[at : at + run], out[start : start + run]
                for k in range(run):
                    target[k] += values[k]
                at += run


@inline_kernel
def _copy(source: FloatArray, target: FloatArray) -> None:
    for i in range(target.size):
        target[i] = source[i]


@inline_kernel
def gemm_forward(
    x: FloatArray, w: FloatArray, y: FloatArray, stride: int, padding: int, scratch: FloatArray
) -> None:
    """y = x * w."""
    filters, channels, kh, kw = w.shape
    images, _, rows, columns = y.shape
    width, taps = x.shape[3] + 2 * padding, channels * kh * kw
    step = _block_rows(images, rows, columns, taps)
    weights, rest = scratch[: w.size], scratch[w.size :]
    unfolded, rest = rest[: step * columns * taps], rest[step * columns * taps :]
    results, lines = rest[: filters * step * columns], rest[filters * step * columns :]
    _weights_channels_last(w, weights)
    for begin in range(0, images * rows, step):
        end = min(begin + step, images * rows)
        at = begin
        while at < end:
            n, i = at // rows, at % rows
            count = min(rows - i, end - at)
            _load_rows(x[n], i * stride, padding, (count - 1) * stride + kh, width, lines)
            target = unfolded[(at - begin) * columns * taps :]
            _unfold(lines, width, channels, kh, kw, stride, count, columns, target)
            at += count
        pixels = (end - begin) * columns
        sgemm(TRANSPOSED, PLAIN, pixels, filters, taps, unfolded, taps, weights, taps, 0.0, results, pixels)
        at = begin
        while at < end:
            n, i = at // rows, at % rows
            count = min(rows - i, end - at) * columns
            for f in range(filters):
                start = f * pixels + (at - begin) * columns
                out = y[n, f].reshape(rows * columns)[i * columns : i * columns + count]
                _copy(results[start : start + count], out)
            at += count // columns


@inline_kernel
def gemm_backward_input(
    dy: FloatArray, w: FloatArray, dx: FloatArray, stride: int, padding: int, scratch: FloatArray
) -> None:
    """dx: the product with the weights, folded back."""
    filters, channels, kh, kw = w.shape
    images, _, rows, columns = dy.shape
    width, taps = dx.shape[3] + 2 * padding, channels * kh * kw
    step = _block_rows(images, rows, columns, taps)
    weights, rest = scratch[: w.size], scratch[w.size :]
    unfolded, rest = rest[: step * columns * taps], rest[step * columns * taps :]
    gradients, lines = rest[: filters * step * columns], rest[filters * step * columns :]
    _weights_channels_last(w, weights)
    dx.reshape(dx.size)[:] = 0.0
    for begin in range(0, images * rows, step):
        end = min(begin + step, images * rows)
        pixels = (end - begin) * columns
        at = begin
        while at < end:
            n, i = at // rows, at % rows
            count = min(rows - i, end - at) * columns
            for f in range(filters):
                start = f * pixels + (at - begin) * columns
                values = dy[n, f].reshape(rows * columns)[i * columns : i * columns + count]
                _copy(values, gradients[start : start + count])
            at += count // columns
        sgemm(PLAIN, TRANSPOSED, taps, pixels, filters, weights, taps, gradients, pixels, 0.0, unfolded, taps)
        at = begin
        while at < end:
            n, i = at // rows, at % rows
            count = min(rows - i, end - at)
            input_rows = (count - 1) * stride + kh
            lines[: input_rows * width * channels] = 0.0
            source = unfolded[(at - begin) * columns * taps :]
            _fold(source, width, channels, kh, kw, stride, count, columns, lines)
            _add_rows(lines, i * stride, padding, input_rows, width, dx[n])
            at += count


@inline_kernel
def gemm_backward_weight(
    x: FloatArray, dy: FloatArray, dw: FloatArray, stride: int, padding: int, scratch: FloatArray
) -> None:
    """dw: the products of the gradients with the unfolded input, summed image by image in scratch."""
    filters, channels, kh, kw = dw.shape
    images, _, rows, columns = dy.shape
    width, taps = x.shape[3] + 2 * padding, channels * kh * kw
    step = min(rows, _block_rows(images, rows, columns, taps))
    total, rest = scratch[: dw.size], scratch[dw.size :]
    unfolded, lines = rest[: step * columns * taps], rest[step * columns * taps :]
    beta = 0.0
    for n in range(images):
        for i in range(0, rows, step):
            count = min(step, rows - i)
            _load_rows(x[n], i * stride, padding, (count - 1) * stride + kh, width, lines)
            _unfold(lines, width, channels, kh, kw, stride, count, columns, unfolded)
            pixels = count * columns
            sgemm(
                PLAIN,
                PLAIN,
                taps,
                filters,
                pixels,
                unfolded,
                taps,
                dy[n, 0, i],
                rows * columns,
                beta,
                total,
                taps,
            )
            beta = 1.0
    _weights_channels_first(total, dw)
