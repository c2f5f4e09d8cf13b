"""SGEMM for compiled kernels, without the GIL and without allocation.

The function is SciPy's own BLAS, by the address that `scipy.linalg.cython_blas` exports.
Kernels refer to it by a symbol name and not by its address, so that compiled code can be cached on disk.
The caller sees to it that BLAS uses one thread per worker.
"""

from __future__ import annotations

import importlib
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import get_cython_function_address, intrinsic

_SYMBOL = "dahl_sgemm"
PLAIN = ord("N")
TRANSPOSED = ord("T")


def load_blas() -> None:
    """Let kernels that call `sgemm` be compiled, or loaded from the cache. Raises ImportError for an unfit SciPy."""
    blas = importlib.import_module(
        "scipy.linalg.cython_blas"
    )  # takes a fifth of a second, so not with this module
    prototype = repr(blas.__pyx_capi__["sgemm"])
    if "(char *, char *, int *, int *, int *," not in prototype:
        raise ImportError(f"SciPy's BLAS must take 32-bit sizes (an LP64 build of SciPy), found {prototype}")
    address = get_cython_function_address("scipy.linalg.cython_blas", "sgemm")
    llvmlite.binding.add_symbol(_SYMBOL, address)


def _sgemm_code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Store the thirteen arguments where Fortran expects them, by reference, and call."""
    byte_pointer = ir.IntType(8).as_pointer()

    def by_reference(value: Any) -> Any:
        return builder.bitcast(cgutils.alloca_once_value(builder, value), byte_pointer)

    def size(position: int) -> Any:
        return by_reference(builder.trunc(args[position], ir.IntType(32)))

    def flag(position: int) -> Any:
        return by_reference(builder.trunc(args[position], ir.IntType(8)))

    def data(position: int) -> Any:
        array_type = signature.args[position]
        array = context.make_array(array_type)(context, builder, args[position])
        return builder.bitcast(array.data, byte_pointer)

    one = by_reference(ir.Constant(ir.FloatType(), 1.0))
    beta = by_reference(builder.fptrunc(args[9], ir.FloatType()))
    call_args = [flag(0), flag(1), size(2), size(3), size(4), one, data(5), size(6), data(7), size(8), beta]
    call_args += [data(10), size(11)]
    function_type = ir.FunctionType(ir.VoidType(), [byte_pointer] * len(call_args))
    function = cgutils.get_or_insert_function(builder.module, function_type, _SYMBOL)
    builder.call(function, call_args)
    return context.get_dummy_value()


def _sgemm(typing_context, trans_a, trans_b, m, n, k, a, lda, b, ldb, beta, c, ldc):
    for array in (a, b, c):
        if not isinstance(array, types.Array) or array.dtype != types.float32:
            return None
    size = types.int64
    signature = types.void(size, size, size, size, size, a, size, b, size, types.float64, c, size)
    return signature, _sgemm_code


sgemm: Any = intrinsic(_sgemm)
"""sgemm(trans_a, trans_b, m, n, k, a, lda, b, ldb, beta, c, ldc): c = op(a) op(b) + beta c, as BLAS's SGEMM.

Matrices are column-major float32: `op(a)` is m x k, `op(b)` k x n, `c` m x n.
`trans_a`, `trans_b`: PLAIN or TRANSPOSED.
`a`, `b`, `c`: arrays of any number of dimensions, of which only the address of the first element counts.
`lda`, `ldb`, `ldc`: distances between columns, in elements.
A row-major matrix is the transpose of a column-major one: `linear.py` shows the translation.
"""
