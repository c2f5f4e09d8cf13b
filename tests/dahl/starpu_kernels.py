"""Small kernels that the tests of the bindings run, with their codelets' descriptions."""

from __future__ import annotations

from typing import Any

from dahl.starpu import Kernel, Operand


def _affine(x: Any, factor: float, shift: float) -> None:
    for i in range(x.size):
        x[i] = x[i] * factor + shift


def _add(x: Any, y: Any) -> None:
    for i in range(y.size):
        y[i] += x[i]


def _total(out: Any, item: Any, index: int, count: int) -> None:
    for i in range(out.size):
        out[i] = item[i] if index == 0 else out[i] * 2 + item[i]


def _refuse_negative(x: Any) -> None:
    if x[0] < 0:
        raise ValueError("x is negative")


def _count_up(x: Any, amount: int, scratch: Any) -> None:
    for i in range(scratch.size):
        scratch[i] = amount
    for i in range(scratch.size):
        x[0] += scratch[i]


def _spin(x: Any, loops: int) -> None:
    value = x[0]
    for _ in range(loops):
        value = value * 0.999999 + 1e-6
    x[0] = value


def _scale_by_operand(table, x, index):
    x[0] *= table[index]


def _ends(images: Any, out: Any) -> None:
    last = images.shape[0] - 1
    out[0] = images[0, 0, 0, 0]
    out[1] = images[last, images.shape[1] - 1, images.shape[2] - 1, images.shape[3] - 1]


AFFINE = Kernel("affine", _affine, (Operand("x", "rw", 1),), (("factor", "float64"), ("shift", "float64")))
ADD = Kernel("add", _add, (Operand("x", "r", 1), Operand("y", "rw", 1)))
TOTAL = Kernel("total", _total, (Operand("out", "w", 1), Operand("item", "r", 1, repeated=True)))
REFUSE_NEGATIVE = Kernel("refuse_negative", _refuse_negative, (Operand("x", "r", 1),))
COUNT_UP = Kernel("count_up", _count_up, (Operand("x", "rw", 1),), (("amount", "int64"),), scratch=True)
SCALE_BY = Kernel(
    "scale_by",
    _scale_by_operand,
    (Operand("table", "r", 1, constant=True), Operand("x", "rw", 1)),
    (("index", "int64"),),
)
ENDS = Kernel("ends", _ends, (Operand("images", "r", 4, "uint8"), Operand("out", "w", 1)))
SPIN = Kernel("spin", _spin, (Operand("x", "rw", 1),), (("loops", "int64"),))
