"""Writing what another core reads next.

A core that writes a cache line which others have read too has to ask all of them to give it up, store by store:
12 to 20 microseconds for 27 kB on the machine of docs/performance.md, where writing past the caches takes 1 and
reading what was so written 2. What only one core after the other reads and writes moves between their caches cheaply.
"""

from __future__ import annotations

from dahl.ops.operation import FloatArray
from dahl.ops.simd import LANES, LINE_BYTES, finish_stores, load, store_past_caches
from dahl.starpu.kernel import inline_kernel


def whole_lines(floats: int) -> int:
    """The number of floats, rounded up to whole cache lines."""
    return (floats + LANES - 1) // LANES * LANES


whole_lines_compiled = inline_kernel(whole_lines)


@inline_kernel
def copy_past_caches(values: FloatArray, target: FloatArray) -> None:
    """`hand_over`, which the caller finishes (`finish_stores`)."""
    size = target.size
    before = min(size, (-target.ctypes.data) % LINE_BYTES // 4)
    whole = before + (size - before) // LANES * LANES
    for k in range(before):
        target[k] = values[k]
    for k in range(before, whole, LANES):
        store_past_caches(load(values, k), target, k)
    for k in range(whole, size):
        target[k] = values[k]


@inline_kernel
def hand_over(values: FloatArray, target: FloatArray) -> None:
    """Copy values to a target of their size, past the caches where whole lines allow it."""
    copy_past_caches(values, target)
    finish_stores()
