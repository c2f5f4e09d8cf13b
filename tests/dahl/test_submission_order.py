"""Operations submitted one by one, in any order that their data allow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dahl import ops, starpu
from dahl.context import Context
from dahl.ops import Operation
from dahl.tensor import Tensor

WORKERS = min(2, len(os.sched_getaffinity(0)))
BATCH, CLASSES = 7, 3


class Call(NamedTuple):
    """An operation with the names of its tensors; ``p.flat`` is ``p`` with one row per image."""

    operation: Operation
    operands: tuple[str, ...]
    scalars: dict[str, Any] = {}  # noqa: RUF012 - never changed


def call(operation: Operation, operands: str, **scalars: Any) -> Call:
    return Call(operation, tuple(operands.split()), scalars)


WINDOW = {"stride": 2, "padding": 1}
STEP = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01}
# conv (stride 2, padding 1) - bias - relu - pool (3 every 1) - linear - bias - loss, and all the way back.
PROGRAM = (
    call(ops.CONV2D, "x w h", **WINDOW),
    call(ops.BIAS_4D, "h b"),
    call(ops.RELU[4], "h r"),
    call(ops.MAX_POOL2D, "r p arg", size=3, stride=1),
    call(ops.LINEAR, "p.flat v y"),
    call(ops.BIAS_2D, "y c"),
    call(ops.SOFTMAX_CROSS_ENTROPY, "y labels dy loss", scale=1 / BATCH),
    call(ops.CROSS_ENTROPY, "y labels loss2"),
    call(ops.ACCURACY, "y labels correct"),
    call(ops.RECORD, "history loss", index=2),
    call(ops.RECORD_COUNT, "counts correct", index=0),
    call(ops.LINEAR_BACKWARD_INPUT, "dy v dp.flat"),
    call(ops.LINEAR_BACKWARD_WEIGHT, "p.flat dy dv.tiles"),
    call(ops.BIAS_GRADIENT_2D, "dy dc.tiles"),
    call(ops.GRADIENT_SUM[2], "dv dv.tiles"),
    call(ops.GRADIENT_SUM[1], "dc dc.tiles"),
    call(ops.MAX_POOL2D_BACKWARD, "dp arg dr", size=3, stride=1),
    call(ops.RELU_BACKWARD[4], "r dr dh"),
    call(ops.CONV2D_BACKWARD_INPUT, "dh w dx", **WINDOW),
    call(ops.CONV2D_BACKWARD_WEIGHT, "x dh dw.tiles", **WINDOW),
    call(ops.BIAS_GRADIENT_4D, "dh db.tiles"),
    call(ops.GRADIENT_SUM[4], "dw dw.tiles"),
    call(ops.GRADIENT_SUM[1], "db db.tiles"),
    call(ops.SGD[4], "w w.v dw", **STEP),
    call(ops.SGD[1], "b b.v db", **STEP),
    call(ops.SGD[2], "v v.v dv", **STEP),
    call(ops.SGD[1], "c c.v dc", **STEP),
    call(ops.LINEAR, "p.flat v y2"),
    call(ops.CONV2D, "x w h2", **WINDOW),
    call(ops.RELU_IN_PLACE[4], "h2"),
)
BY_IMAGE = {
    **dict.fromkeys(("h", "r", "dr", "dh", "h2"), (4, 5, 4)),
    **dict.fromkeys(("p", "dp"), (4, 3, 2)),
    **dict.fromkeys(("y", "dy", "y2"), (CLASSES,)),
    "dx": (2, 9, 8),
}
PARAMETERS = {"w": (4, 2, 3, 3), "b": (4,), "v": (CLASSES, 24), "c": (CLASSES,)}
PIECES = {"loss": np.float64, "loss2": np.float64, "correct": np.int64}


def storage(name: str) -> str:
    return name.removesuffix(".flat")


def dependencies(program: Sequence[Call]) -> list[set[int]]:
    """For each call the earlier ones that write what it touches, or read what it writes."""
    before: list[set[int]] = []
    for position, later in enumerate(program):
        needs = set()
        for earlier in range(position):
            for one, mode in zip(
                program[earlier].operands, program[earlier].operation.kernel.operands, strict=True
            ):
                for other, own in zip(later.operands, later.operation.kernel.operands, strict=True):
                    if storage(one) == storage(other) and (mode.mode, own.mode) != ("r", "r"):
                        needs.add(earlier)
        before.append(needs)
    return before


NEEDS = dependencies(PROGRAM)


def order_by(wishes: Sequence[int]) -> list[int]:
    """The calls in the order of the wishes as far as the data allow: always the most wanted of those that can go."""
    done: list[int] = []
    while len(done) < len(PROGRAM):
        possible = [i for i in range(len(PROGRAM)) if i not in done and NEEDS[i] <= set(done)]
        done.append(min(possible, key=lambda i: wishes[i]))
    return done


def start_values() -> dict[str, np.ndarray]:
    """The arrays that nothing in the program writes first."""
    rng = np.random.default_rng(0)
    values: dict[str, np.ndarray] = {
        name: rng.standard_normal(shape, np.float32) for name, shape in PARAMETERS.items()
    }
    values |= {f"{name}.v": rng.standard_normal(shape, np.float32) for name, shape in PARAMETERS.items()}
    values["x"] = rng.standard_normal((BATCH, 2, 9, 8), np.float32)
    values["labels"] = rng.integers(0, CLASSES, BATCH).astype(np.int32)
    return {**values, "history": np.zeros(4), "counts": np.zeros(2, np.int64)}


def make_tensors(context: Context, tile: int) -> dict[str, Tensor]:
    tensors = {}
    for name, values in start_values().items():
        tensors[name] = context.tensor(values, tile=tile if name in ("x", "labels") else None, name=name)
    for name, shape in BY_IMAGE.items():
        tensors[name] = context.tensor(np.full((BATCH, *shape), np.nan, np.float32), tile=tile, name=name)
    tensors["arg"] = context.tensor((BATCH, 4, 3, 2), tile=tile, dtype=np.uint8, name="arg")
    count = tensors["x"].tile_count
    for name, shape in PARAMETERS.items():
        tensors[f"d{name}"] = context.tensor(np.full(shape, np.nan, np.float32))
        tensors[f"d{name}.tiles"] = context.per_tile(shape, count)
        tensors[f"d{name}.tiles"].write(np.full((count, *shape), np.nan))
    for name, dtype in PIECES.items():
        tensors[name] = context.per_tile((1,), count, dtype=dtype)
        tensors[name].write(np.full((count, 1), -1))
    tensors["p.flat"], tensors["dp.flat"] = tensors["p"].flatten(), tensors["dp"].flatten()
    return tensors


def run_reference(tensors: dict[str, Tensor]) -> dict[str, list[np.ndarray]]:
    """The program in its written order, each operation by its float64 reference, tile by tile."""
    state: dict[str, list[np.ndarray]] = {}
    for name, tensor in tensors.items():
        tiles = [tile.handle.array.copy() for tile in tensor.tiles]
        state[storage(name)] = [
            tile.astype(np.float64) if tile.dtype == np.float32 else tile for tile in tiles
        ]
    for operation, names, scalars in PROGRAM:
        kernel = operation.kernel
        single = names[:-1] if kernel.repeats else names
        for index in range(max(len(state[storage(name)]) for name in single)):
            arrays: dict[str, Any] = {}
            for operand, name in zip(kernel.operands, names, strict=True):
                tiles, shapes = state[storage(name)], tensors[name].tile_shapes
                at = index if len(tiles) > 1 else 0
                arrays[operand.name] = tiles if operand.repeated else tiles[at].reshape(shapes[at])
            made = operation.reference(arrays, {**operation.defaults, **scalars})
            for operand, name in zip(kernel.operands, names, strict=True):
                if operand.mode != "r":
                    tiles = state[storage(name)]
                    at = index if len(tiles) > 1 else 0
                    tiles[at] = np.asarray(made[operand.name]).reshape(tiles[at].shape)
    return state


@settings(deadline=None, max_examples=25)
@given(
    st.permutations(range(len(PROGRAM))),
    st.integers(1, BATCH),
    st.sampled_from(["eager", "lws", "random", "prio"]),
)
def test_any_order_that_the_data_allow_gives_the_references_values(
    wishes: list[int], tile: int, scheduler: str
) -> None:
    """Sums of at most 24 x 9 float32 products of order 1: 2e-5 of the largest value is some 10 roundings each."""
    with starpu.Runtime(cpu_workers=WORKERS, scheduler=scheduler, trace=False) as runtime:
        context = Context(runtime)
        tensors = make_tensors(context, tile)
        expected = run_reference(tensors)
        for position in order_by(wishes):
            operation, names, scalars = PROGRAM[position]
            context.submit(operation, *[tensors[name] for name in names], **scalars)
        for name, tiles in expected.items():
            found = tensors[name].numpy().reshape(-1)
            exact = np.concatenate([tile.reshape(-1) for tile in tiles])
            atol = 2e-5 * max(1.0, float(np.abs(exact).max()))
            np.testing.assert_allclose(found, exact, rtol=0, atol=atol, err_msg=name)


def test_the_orders_that_are_tried_are_many() -> None:
    """So that the test above cannot pass by always submitting in the written order."""
    rng = np.random.default_rng(0)
    orders = {tuple(order_by(list(rng.permutation(len(PROGRAM))))) for _ in range(20)}
    assert len(orders) == 20
    assert all(order[0] == 0 for order in orders), "everything needs the first convolution"
