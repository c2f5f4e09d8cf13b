"""More operations on the vectors of `simd.py`: choices lane by lane, 16x16 transposes, exponentials.

A choice is 16 bits, the lowest for the first lane, kept as an integer.
Offsets count elements, and nothing checks bounds.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from dahl.ops.simd import (
    BYTE,
    FLAGS,
    FLOAT,
    INT,
    LANES,
    VECTOR,
    constant,
    shuffle,
    vector_pointer,
)

_BITS = ir.IntType(LANES)
_FLAG_VECTOR = ir.VectorType(ir.IntType(1), LANES)
_VECTOR_IR = ir.VectorType(FLOAT, LANES)
_INTS = ir.VectorType(INT, LANES)


def _compare(condition: str, *, ordered: bool) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        compare = builder.fcmp_ordered if ordered else builder.fcmp_unordered
        bits = compare(condition, args[0], args[1])
        return builder.zext(builder.bitcast(bits, _BITS), ir.IntType(64))

    def typing(typing_context, a, b):
        return types.int64(VECTOR, VECTOR), code

    return intrinsic(typing)


def _choose(typing_context, bits, a, b):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        flags = builder.bitcast(builder.trunc(args[0], _BITS), _FLAG_VECTOR)
        return builder.select(flags, args[1], args[2])

    return VECTOR(types.int64, VECTOR, VECTOR), code


def _compress(typing_context, vector, bits):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        flags = builder.bitcast(builder.trunc(args[1], _BITS), _FLAG_VECTOR)
        kind = ir.FunctionType(_VECTOR_IR, [_VECTOR_IR, _FLAG_VECTOR, _VECTOR_IR])
        name = f"llvm.experimental.vector.compress.v{LANES}f32"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [args[0], flags, ir.Constant(_VECTOR_IR, ir.Undefined)])

    return VECTOR(VECTOR, types.int64), code


def _count_bits(typing_context, bits):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), code


def _larger(typing_context, a, b):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[1], args[0]), args[1], args[0])

    return VECTOR(VECTOR, VECTOR), code


def _rectify(typing_context, vector):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = constant(FLOAT, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered("<=", args[0], zero), zero, args[0])

    return VECTOR(VECTOR), code


def _arithmetic(name: str) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, name)(args[0], args[1], flags=FLAGS)

    def typing(typing_context, a, b):
        return VECTOR(VECTOR, VECTOR), code

    return intrinsic(typing)


def _store_first(typing_context, vector, array, offset, count):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = vector_pointer(context, builder, signature, args, 1, LANES)
        bound = _splat_int(builder, builder.trunc(args[3], INT))
        kept = builder.icmp_signed("<", constant(INT, range(LANES)), bound)
        kind = ir.FunctionType(ir.VoidType(), [_VECTOR_IR, pointer.type, INT, _FLAG_VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.v{LANES}f32.p0")
        builder.call(function, [args[0], pointer, ir.Constant(INT, 4), kept])
        return context.get_dummy_value()

    return types.void(VECTOR, array, types.int64, types.int64), code


def _splat_int(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_INTS, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(INT, 0))
    return shuffle(builder, first, undefined, [0] * LANES)


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of 16 vectors of 16: four rounds that interleave rows 8 apart."""
    low = [lane for pair in range(8) for lane in (pair, LANES + pair)]
    high = [lane + 8 for lane in low]
    for _ in range(4):
        rows = [shuffle(builder, rows[row], rows[row + 8], half) for row in range(8) for half in (low, high)]
    return rows


def _transpose(typing_context, source, at, stride, target, to, step):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def pointers(position: int) -> list[Any]:
            data = context.make_array(signature.args[position])(context, builder, args[position]).data
            kind = _VECTOR_IR.as_pointer()
            size = args[position + 2]
            offsets = [
                builder.add(args[position + 1], builder.mul(size, ir.Constant(size.type, row)))
                for row in range(LANES)
            ]
            return [builder.bitcast(builder.gep(data, [offset]), kind) for offset in offsets]

        rows = [builder.load(pointer, align=4) for pointer in pointers(0)]
        for value, pointer in zip(_transposed(builder, rows), pointers(3), strict=True):
            builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    offset = types.int64
    return types.void(source, offset, offset, target, offset, offset), code


def _gather_bytes(typing_context, source, offsets, at, scale, shift, target, to):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        starts = context.make_array(signature.args[1])(context, builder, args[1]).data
        out = context.make_array(signature.args[5])(context, builder, args[5]).data
        rows = []
        for image in range(LANES):
            start = builder.load(builder.gep(starts, [ir.Constant(INT, image)]))
            pointer = builder.gep(data, [builder.add(start, args[2])])
            kind = ir.VectorType(BYTE, LANES).as_pointer()
            rows.append(builder.load(builder.bitcast(pointer, kind), align=1))
        for pixel, values in enumerate(_transposed(builder, rows)):
            real = builder.uitofp(values, _VECTOR_IR)
            value = builder.fadd(builder.fmul(real, args[3], flags=FLAGS), args[4], flags=FLAGS)
            place = builder.add(args[6], ir.Constant(args[6].type, LANES * pixel))
            builder.store(value, builder.bitcast(builder.gep(out, [place]), _VECTOR_IR.as_pointer()), align=4)
        return context.get_dummy_value()

    offset = types.int64
    return types.void(source, offsets, offset, VECTOR, VECTOR, target, offset), code


def _prefetch(typing_context, array, offset):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), BYTE.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, INT, INT, INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, *(ir.Constant(INT, value) for value in (0, 2, 1))])
        return context.get_dummy_value()

    return types.void(array, types.int64), code


# exp(x) = 2^n exp(r) with |r| <= ln(2) / 2: n by adding and taking away a number so large that it rounds,
# exp(r) by its Taylor polynomial of degree 7, whose error is below 2^-26 there.
_ROUNDER = 12582912.0  # 1.5 * 2^23
_ROUNDER_BITS = 0x4B400000
_LOG2_E = 1.44269504088896341
_LN2 = (0.693359375, -2.12194440e-4)  # in two parts, the first exact in n times it (Cephes)
_LOWEST = -87.0


def _plain(builder: Any, name: str, a: Any, b: Any) -> Any:
    """Arithmetic that may be fused and not reordered; without a flag it would get all those of the kernel."""
    return getattr(builder, name)(a, b, flags=("contract",))


def _exponential(typing_context, vector):
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def all_of(value: float) -> Any:
            return constant(FLOAT, [value] * LANES)

        x = args[0]
        x = builder.select(builder.fcmp_ordered("<", x, all_of(_LOWEST)), all_of(_LOWEST), x)
        big = _plain(builder, "fadd", _plain(builder, "fmul", x, all_of(_LOG2_E)), all_of(_ROUNDER))
        n = _plain(builder, "fsub", big, all_of(_ROUNDER))
        rest = x
        for part in _LN2:
            rest = _plain(builder, "fsub", rest, _plain(builder, "fmul", n, all_of(part)))
        total = all_of(1 / 5040)
        for divisor in (720, 120, 24, 6, 2, 1, 1):
            total = _plain(builder, "fadd", _plain(builder, "fmul", total, rest), all_of(1 / divisor))
        exponent = builder.sub(builder.bitcast(big, _INTS), constant(INT, [_ROUNDER_BITS - 127] * LANES))
        power = builder.bitcast(builder.shl(exponent, constant(INT, [23] * LANES)), _VECTOR_IR)
        return _plain(builder, "fmul", total, power)

    return VECTOR(VECTOR), code


greater: Any = _compare(">", ordered=True)
"""greater(a, b): the choice of the lanes in which a > b."""
differs: Any = _compare("!=", ordered=False)
"""differs(a, b): the choice of the lanes that are not equal; a NaN is equal to nothing."""
choose: Any = intrinsic(_choose)
"""choose(bits, a, b): a where the bit is set, else b."""
compress: Any = intrinsic(_compress)
"""compress(vector, bits): the lanes whose bit is set, moved to the front; what follows them is undefined."""
count_bits: Any = intrinsic(_count_bits)
"""count_bits(bits): how many are set."""
larger: Any = intrinsic(_larger)
"""larger(a, b): a where b is not above it, else b; a NaN in a stays."""
rectify: Any = intrinsic(_rectify)
"""rectify(vector): 0 where it is not above 0; a NaN stays."""
add: Any = _arithmetic("fadd")
"""add(a, b)."""
subtract: Any = _arithmetic("fsub")
"""subtract(a, b)."""
multiply: Any = _arithmetic("fmul")
"""multiply(a, b)."""
divide: Any = _arithmetic("fdiv")
"""divide(a, b)."""
store_first: Any = intrinsic(_store_first)
"""store_first(vector, array, offset, count): only the first `count` lanes."""
transpose: Any = intrinsic(_transpose)
"""transpose(source, at, stride, target, to, step): 16 rows of 16 floats, `stride` apart, to columns `step` apart."""
gather_bytes: Any = intrinsic(_gather_bytes)
"""gather_bytes(source, offsets, at, scale, shift, target, to): 16 bytes of each of 16 places, transposed.

Reads `source` (uint8) at `offsets[lane] + at`; writes byte * scale + shift, one vector for each of the 16 bytes.
"""
prefetch: Any = intrinsic(_prefetch)
"""prefetch(array, offset): ask for the cache line there, which may be none of the array's."""
exponential: Any = intrinsic(_exponential)
"""exponential(vector): e to each lane up to 88, within 2e-7 of it; below -87, e^-87. A NaN stays."""
