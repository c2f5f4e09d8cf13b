"""Keep the sum of one number per tile in a history, so that nobody has to wait for it."""

from __future__ import annotations

from typing import Any

from dahl.ops.device import by_items, launched, source
from dahl.ops.operation import Arrays, Cost, Operation, Scalars, Shapes, require, require_shape
from dahl.starpu.kernel import Kernel, Operand
from dahl.starpu.launch import Buffer, CudaKernel, Failure, Items, Program, Scalar

_NUMBER_BYTES = 8
_ARCHES = ("cpu",)  # the history is read in main memory


def _record(history: Any, item: Any, index: int, item_index: int, count: int) -> None:
    if index < 0 or index >= history.size:
        raise IndexError("record: index is outside the history")
    if item_index == 0:
        history[index] = item[0]
    else:
        history[index] += item[0]


def _cost(shapes: Shapes, scalars: Scalars) -> Cost:
    count = len(shapes["items"])
    return Cost(count - 1, _NUMBER_BYTES * (count + 1))


def _reference(inputs: Arrays, scalars: Scalars) -> dict[str, Any]:
    history = inputs["history"].copy()
    history[int(scalars["index"])] = sum(item[0] for item in inputs["items"])
    return {"history": history}


def _cuda(function: str) -> CudaKernel:
    def program(shapes: Shapes, scalars: Scalars) -> Program:
        length, one = shapes["history"][0], (1, 1, 1)
        launches = []
        for first, count in by_items(shapes["items"]):
            numbers = count, length, int(first == 0), Scalar("index"), Failure()
            operands = Buffer("history"), Items("items", first, count)
            launches.append(launched(function, one, one, *operands, *numbers))
        return Program(tuple(launches))

    return CudaKernel(source("record"), program)


def _operation(name: str, dtype: str) -> Operation:
    def check(shapes: Shapes, scalars: Scalars) -> None:
        for item in shapes["items"]:
            require_shape(name, "an item", item, (1,), "a history of numbers")
        length, index = shapes["history"][0], scalars.get("index")
        if isinstance(index, int):
            require(0 <= index < length, f"{name}: index {index} is outside a history of {length}")

    operands = (Operand("history", "rw", 1, dtype), Operand("items", "r", 1, dtype, repeated=True))
    kernel = Kernel(name, _record, operands, scalars=(("index", "int64"),))
    return Operation(kernel, check, _cost, _reference, arches=_ARCHES, cuda=_cuda(name))


RECORD = _operation("record", "float64")
"""history[index] = items[0] + items[1] + ... in that order; history (any,), each item (1,); float64.

An index outside the history raises.
"""
RECORD_COUNT = _operation("record_count", "int64")
"""RECORD for counts: int64."""
