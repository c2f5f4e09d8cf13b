"""How a worker's scratch memory is cut for a micro-tile of `lenet_step.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dahl.ops.image_lanes import CLASS_BLOCK
from dahl.ops.micro_tiles import MICRO_TILE
from dahl.ops.network_step import NUMBERS_FLOATS, cut
from dahl.ops.operation import FloatArray
from dahl.starpu.kernel import inline_kernel


class Scratch(NamedTuple):
    """The parts of scratch, in the order of `scratch_sizes`; h1 and h2 are after the poolings, by image."""

    x: Any
    h1: Any
    places1: Any
    """Where the largest of each window stood."""
    h2: Any
    """Backward its gradient."""
    places2: Any
    lanes2: Any
    """h2 with the images as lanes; rows2: that transposed; the same of the units."""
    rows2: Any
    units: Any
    unit_rows: Any
    logits: Any
    dunits: Any
    dlanes2: Any
    dh1: Any
    """Of one image."""
    taps1: Any
    """Weights in the orders that the loops read."""
    taps2: Any
    filters2: Any
    dfilters2: Any
    sums1: Any
    """A float for each weight and bias of the first convolution."""
    offsets: Any
    """Lists of chosen_products."""
    factors: Any
    ends: Any
    lane: Any
    numbers: Any
    rest: Any


def scratch_sizes(image: Any, first_filters: int, second_filters: int, units: int, classes: int) -> Any:
    """Floats of each part."""
    channels, height, width = image
    rows, columns = (height - 2) // 2, (width - 2) // 2
    one, two = rows * columns, ((rows - 2) // 2) * ((columns - 2) // 2)
    inputs, items = two * second_filters, (two + 1) * second_filters + MICRO_TILE
    unit_blocks = (units + CLASS_BLOCK - 1) // CLASS_BLOCK * CLASS_BLOCK
    return (
        channels * height * width * MICRO_TILE,
        one * first_filters * MICRO_TILE,
        one * first_filters,
        inputs * MICRO_TILE,
        inputs,
        inputs * MICRO_TILE,
        inputs * MICRO_TILE,
        units * MICRO_TILE,
        units * MICRO_TILE,
        (classes + CLASS_BLOCK - 1) // CLASS_BLOCK * CLASS_BLOCK * MICRO_TILE,
        unit_blocks * MICRO_TILE,
        inputs * MICRO_TILE,
        one * first_filters,
        9 * channels * first_filters,
        9 * first_filters * second_filters,
        9 * first_filters * second_filters,
        9 * first_filters * second_filters,
        (9 * channels + 1) * first_filters,
        items,
        items,
        (4 * two + MICRO_TILE - 1) // MICRO_TILE * MICRO_TILE,
        MICRO_TILE,
        NUMBERS_FLOATS,
    )


_compiled_sizes = inline_kernel(scratch_sizes)


@inline_kernel
def scratch_views(scratch: FloatArray, image: Any, size: Any) -> Any:
    """Cut scratch into its parts; `size`: filters of the convolutions, units, classes."""
    sizes = _compiled_sizes(image, size[0], size[1], size[2], size[3])
    at = 0
    x, at = cut(scratch, at, sizes[0])
    h1, at = cut(scratch, at, sizes[1])
    places1, at = cut(scratch, at, sizes[2])
    h2, at = cut(scratch, at, sizes[3])
    places2, at = cut(scratch, at, sizes[4])
    lanes2, at = cut(scratch, at, sizes[5])
    rows2, at = cut(scratch, at, sizes[6])
    units, at = cut(scratch, at, sizes[7])
    unit_rows, at = cut(scratch, at, sizes[8])
    logits, at = cut(scratch, at, sizes[9])
    dunits, at = cut(scratch, at, sizes[10])
    dlanes2, at = cut(scratch, at, sizes[11])
    dh1, at = cut(scratch, at, sizes[12])
    taps1, at = cut(scratch, at, sizes[13])
    taps2, at = cut(scratch, at, sizes[14])
    filters2, at = cut(scratch, at, sizes[15])
    dfilters2, at = cut(scratch, at, sizes[16])
    sums1, at = cut(scratch, at, sizes[17])
    offsets, at = cut(scratch, at, sizes[18])
    factors, at = cut(scratch, at, sizes[19])
    ends, at = cut(scratch, at, sizes[20])
    lane, at = cut(scratch, at, sizes[21])
    numbers, at = cut(scratch, at, sizes[22])
    return Scratch(
        x,
        h1,
        places1.view(np.int32),
        h2,
        places2.view(np.int32),
        lanes2,
        rows2,
        units,
        unit_rows,
        logits,
        dunits,
        dlanes2,
        dh1,
        taps1,
        taps2,
        filters2,
        dfilters2,
        sums1,
        offsets.view(np.int32),
        factors,
        ends.view(np.int32),
        lane,
        numbers.view(np.int64),
        scratch[at:],
    )
