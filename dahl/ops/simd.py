"""Vectors of 16 floats for kernels whose loops a compiler does not vectorise well by itself.

LLVM lowers them to whatever the CPU has: one AVX-512 register, two of AVX, four of SSE or NEON.
Arrays are C-contiguous, of any number of dimensions and seen flat.
Offsets count elements, and nothing checks bounds.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

LANES = 16
LINE_BYTES = 64
"""A vector is a cache line."""
FLAGS = ("contract", "reassoc", "nsz")  # those of the kernels: no nnan
FLOAT, BYTE, INT = ir.FloatType(), ir.IntType(8), ir.IntType(32)


class _VectorType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Vector16Float32")


VECTOR = _VectorType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, front_type: Any) -> None:
        super().__init__(manager, front_type, ir.VectorType(FLOAT, LANES))


def vector_pointer(context: Any, builder: Any, signature: Any, args: Any, at: int, lanes: int) -> Any:
    """Pointer to `lanes` elements of the array argument `at`, from the offset argument that follows it."""
    data = context.make_array(signature.args[at])(context, builder, args[at]).data
    element = data.type.pointee
    return builder.bitcast(builder.gep(data, [args[at + 1]]), ir.VectorType(element, lanes).as_pointer())


def constant(element: Any, values: Any) -> Any:
    return ir.Constant(ir.VectorType(element, len(values)), list(values))


def shuffle(builder: Any, a: Any, b: Any, lanes: Any) -> Any:
    return builder.shuffle_vector(a, b, constant(INT, lanes))


def _load(typing_context, array, offset):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(vector_pointer(context, builder, signature, args, 0, LANES), align=4)

    return VECTOR(array, types.int64), code


def _store(typing_context, vector, array, offset):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[0], vector_pointer(context, builder, signature, args, 1, LANES), align=4)
        return context.get_dummy_value()

    return types.void(VECTOR, array, types.int64), code


def _store_past_caches(typing_context, vector, array, offset):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = vector_pointer(context, builder, signature, args, 1, LANES)
        stored = builder.store(args[0], pointer, align=LINE_BYTES)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(INT, 1)]))
        return context.get_dummy_value()

    return types.void(VECTOR, array, types.int64), code


def _finish_stores(typing_context):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code


def _splat_code(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(FLOAT, LANES), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(INT, 0))
    return shuffle(builder, first, undefined, [0] * LANES)


def _splat(typing_context, value):
    return VECTOR(types.float32), lambda context, builder, signature, args: _splat_code(builder, args[0])


def _load_splat(typing_context, array, offset):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return _splat_code(builder, builder.load(builder.gep(data, [args[1]])))

    return VECTOR(array, types.int64), code


def _multiply_add(typing_context, total, a, b):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.fmul(args[1], args[2], flags=FLAGS)
        return builder.fadd(args[0], product, flags=FLAGS)

    return VECTOR(VECTOR, VECTOR, VECTOR), code


def _keep_last(typing_context, vector, count):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = builder.sub(ir.Constant(INT, LANES), builder.trunc(args[1], INT))
        undefined = ir.Constant(ir.VectorType(INT, LANES), ir.Undefined)
        bound = builder.insert_element(undefined, first, ir.Constant(INT, 0))
        bound = shuffle(builder, bound, undefined, [0] * LANES)
        kept = builder.icmp_signed(">=", constant(INT, range(LANES)), bound)
        return builder.select(kept, args[0], constant(FLOAT, [0.0] * LANES))

    return VECTOR(VECTOR, types.int64), code


def _sum_lanes(typing_context, vector):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, lanes = args[0], LANES
        while lanes > 1:
            lanes //= 2
            low = shuffle(builder, value, value, range(lanes))
            value = builder.fadd(low, shuffle(builder, value, value, range(lanes, 2 * lanes)))
        return builder.extract_element(value, ir.Constant(INT, 0))

    return types.float32(VECTOR), code


def _largest_of_windows(windows: int) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def pointer(at: int, lanes: int) -> Any:
            return vector_pointer(context, builder, signature, args, at, lanes)

        rows = [builder.load(pointer(at, 2 * windows), align=4) for at in (0, 2)]
        even, odd = range(0, 2 * windows, 2), range(1, 2 * windows, 2)
        best, *others = [shuffle(builder, row, row, lanes) for row in rows for lanes in (even, odd)]
        where = constant(BYTE, [0] * windows)
        for number, candidate in enumerate(others, start=1):
            # A number gives way to a larger one or to a NaN; a NaN stays.
            take = builder.fcmp_unordered(">", candidate, best)
            take = builder.and_(take, builder.fcmp_ordered("ord", best, best))
            best = builder.select(take, candidate, best)
            where = builder.select(take, constant(BYTE, [number] * windows), where)
        builder.store(best, pointer(4, windows), align=4)
        builder.store(where, pointer(6, windows), align=1)
        return context.get_dummy_value()

    def typing(typing_context, top, at_top, bottom, at_bottom, out, at_out, place, at_place):
        offset = types.int64
        return types.void(top, offset, bottom, offset, out, offset, place, offset), code

    return intrinsic(typing)


def _spread_windows(windows: int) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def pointer(at: int, lanes: int) -> Any:
            return vector_pointer(context, builder, signature, args, at, lanes)

        values = builder.load(pointer(0, windows), align=4)
        where = builder.load(pointer(2, windows), align=1)
        zero = constant(FLOAT, [0.0] * windows)
        parts = []
        for number in range(4):
            here = builder.icmp_unsigned("==", where, constant(BYTE, [number] * windows))
            parts.append(builder.select(here, values, zero))
        interleaved = [half for window in range(windows) for half in (window, windows + window)]
        for at, (left, right) in ((4, parts[:2]), (6, parts[2:])):
            builder.store(shuffle(builder, left, right, interleaved), pointer(at, 2 * windows), align=4)
        return context.get_dummy_value()

    def typing(typing_context, gradient, at_gradient, place, at_place, top, at_top, bottom, at_bottom):
        offset = types.int64
        return types.void(gradient, offset, place, offset, top, offset, bottom, offset), code

    return intrinsic(typing)


load: Any = intrinsic(_load)
"""load(array, offset): a vector of the 16 floats there."""
store: Any = intrinsic(_store)
"""store(vector, array, offset)."""
store_past_caches: Any = intrinsic(_store_past_caches)
"""store_past_caches(vector, array, offset): to a multiple of 64 bytes; after the last comes `finish_stores`."""
finish_stores: Any = intrinsic(_finish_stores)
"""finish_stores(): other cores see what was stored past the caches before what is stored from here on."""
splat: Any = intrinsic(_splat)
"""splat(value): a vector of 16 times the float32."""
load_splat: Any = intrinsic(_load_splat)
"""load_splat(array, offset): a vector of 16 times the float32 there."""
multiply_add: Any = intrinsic(_multiply_add)
"""multiply_add(total, a, b): total + a * b in each lane, in one rounding where the CPU can."""
keep_last: Any = intrinsic(_keep_last)
"""keep_last(vector, count): zeros in all but the last `count` lanes."""
sum_lanes: Any = intrinsic(_sum_lanes)
"""sum_lanes(vector): the sum, by halves."""
largest_of_8: Any = _largest_of_windows(8)
"""largest_of_8(top, at, bottom, at, out, at, place, at): eight windows of 2x2 from two rows of 16 floats.

Writes the largest of each window, the first NaN where there is one, and its place (0 to 3, in row order).
"""
largest_of_4: Any = _largest_of_windows(4)
"""largest_of_8 for four windows."""
spread_8: Any = _spread_windows(8)
"""spread_8(gradient, at, place, at, top, at, bottom, at): eight gradients to where the largest stood.

Writes all of the two rows of 16 floats.
"""
spread_4: Any = _spread_windows(4)
"""spread_8 for four windows."""
