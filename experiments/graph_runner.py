"""Running a task graph that is no training on a simulated node, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import numpy as np

from dahl.context import Context
from dahl.ops.operation import Cost, Operation
from dahl.starpu import TaskGraph
from dahl.starpu.kernel import Kernel, Mode, Operand
from dahl.tensor import Tensor
from dahl.training import BatchProgress, EpochResult
from experiments.graphs import GraphDescription, GraphTask, TaskKind

GRAPHS_AHEAD = 2
"""How many graphs may be submitted before the first of them is done."""

MAX_BUFFERS = 8
"""StarPU's ``STARPU_NMAXBUFS``: a task with more data gives all that it only reads as one repeated operand."""


@final
class GraphRunner:
    """Submits a described graph; an epoch is all of its parts, each so many times. There are no images and no loss."""

    def __init__(self, context: Context, description: GraphDescription) -> None:
        self._context, self._runtime = context, context.runtime
        self._kinds = description.kinds
        self._operations: dict[tuple[int, tuple[str, ...], bool], Operation] = {}
        self._data = [
            context.tensor((size,), dtype=np.uint8, name=f"data {at}")
            for at, size in enumerate(description.data_bytes)
        ]
        self.epoch_graphs: list[tuple[TaskGraph, int]] = []
        """The recorded graphs of one epoch, and how often each is submitted."""
        for tasks, times in description.parts:
            with context.record() as graph:
                for task in tasks:
                    self._submit(task)
            self.epoch_graphs.append((graph, times))

    def run_epoch(self, epoch: int, on_batch: Callable[[BatchProgress], None] | None = None) -> EpochResult:
        """Submit every part and wait for all of it."""
        self._runtime.plan(self.epoch_graphs)
        start_s = self._runtime.now_s()
        for graph, times in self.epoch_graphs:
            for step in range(times):
                graph.submit(step)
                self._runtime.wait_submitted(len(graph) * GRAPHS_AHEAD)
                if on_batch is not None:
                    on_batch(BatchProgress(epoch, 0, 0, self._runtime.now_s() - start_s, math.nan))
        self._runtime.wait_all()
        return EpochResult(epoch, 0, start_s, self._runtime.now_s(), math.nan)

    def _submit(self, task: GraphTask) -> None:
        accesses = sorted(task.accesses, key=lambda access: access[1] == "r")
        tensors = [self._data[data] for data, _ in accesses]
        modes = tuple(mode for _, mode in accesses)
        written = sum(mode != "r" for mode in modes)
        repeated = len(accesses) > MAX_BUFFERS
        if repeated:
            items = tensors[written:]
            tiles = tuple(tensor.tiles[0] for tensor in items)
            rest = Tensor((sum(t.shape[0] for t in items),), tiles, items[0].dtype, "items")
            tensors, modes = [*tensors[:written], rest], (*modes[:written], "r")
        self._context.submit(self._operation(task.kind, modes, repeated), *tensors)

    def _operation(self, kind: int, modes: tuple[Mode, ...], repeated: bool) -> Operation:
        key = kind, modes, repeated
        if key not in self._operations:
            names = [operation.name for operation in self._operations.values()]
            own = self._kinds[kind].name
            same = sum(name == own or name.startswith(f"{own}/") for name in names)
            self._operations[key] = _operation(
                self._kinds[kind], f"{own}/{same + 1}" if same else own, modes, repeated
            )
        return self._operations[key]


def _operation(kind: TaskKind, name: str, modes: tuple[Mode, ...], repeated: bool) -> Operation:
    """An operation of that much work, which nobody can compute."""
    operands = tuple(
        Operand(f"data{at}", mode, 1, "uint8", repeated=repeated and at == len(modes) - 1)
        for at, mode in enumerate(modes)
    )
    cost = Cost(kind.flops, kind.bytes)
    return Operation(
        Kernel(name, _no_kernel, operands),
        check=lambda shapes, scalars: None,
        cost=lambda shapes, scalars: cost,
        reference=_no_kernel,
        kind=kind.kind,  # type: ignore[arg-type]  # TaskKind checks it
        arches=kind.arches,
    )


def _no_kernel(*_: Any) -> Any:
    raise NotImplementedError("a described graph has no kernels: it runs on simulated nodes")
