"""Submitting operations on tensors: one task per tile, now or recorded into a graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dahl.costs import UNKNOWN, CostModel, Estimates, cost_key, energy_j
from dahl.ops.operation import Cost, Operation, ShapeError
from dahl.starpu import Codelet, Costs, MachineWatts, Runtime, Step, TaskGraph, Worker
from dahl.tensor import Shape, Tensor, Tile, aligned_empty, cut


@final
@dataclass(frozen=True)
class _Prepared:
    """A task before it is submitted or recorded."""

    codelet: Codelet
    tiles: tuple[Tile, ...]
    args: np.ndarray
    strides: dict[int, int]
    costs: Costs
    footprint: int
    tag: int
    program: np.ndarray | None
    """What it runs on a GPU."""


@final
class Context:
    """Tensors and operations on one runtime.

    ``costs`` and ``watts`` tell the expected seconds and joules of each task; without them they are unknown.
    ``estimates`` puts them wrong on purpose.
    """

    def __init__(
        self,
        runtime: Runtime,
        costs: CostModel | None = None,
        watts: MachineWatts | None = None,
        estimates: Estimates | None = None,
    ) -> None:
        self.runtime, self._estimates = runtime, estimates or Estimates()
        self._cost_model, self._watts = costs, watts
        self._codelets: dict[str, tuple[Operation, Codelet]] = {}
        self._costs: dict[str, Costs] = {}
        self.footprints: list[str] = []
        """``cost_key`` by footprint number."""
        self.work: dict[int, tuple[str, Cost]] = {}
        """By footprint number: the kind of kernel, and the arithmetic and traffic of one task."""
        self._footprint_of: dict[str, int] = {}
        self._graph: TaskGraph | None = None
        self.graphs: list[TaskGraph] = []
        """Every graph that was recorded, in order."""

    # ---- tensors ----

    def tensor(
        self,
        values: Shape | np.ndarray,
        *,
        tile: int | Sequence[int] | None = None,
        dtype: Any = np.float32,
        name: str = "tensor",
        copy: bool = True,
    ) -> Tensor:
        """Return a new tensor of a shape (uninitialised) or of an array's values and dtype.

        ``tile`` cuts it along the first axis (None: one tile), a sequence of them where sizes differ.
        With ``copy=False`` the array itself is used, which may be read-only memory (then tasks may only read it).
        """
        if isinstance(values, np.ndarray):
            array = values
            if copy:
                array = aligned_empty(values.shape, values.dtype)
                array[...] = values
        else:
            array = aligned_empty(tuple(values), np.dtype(dtype))
        return cut(self.runtime, array, tile, name)

    def per_tile(
        self, shape: Shape, count: int, *, dtype: Any = np.float32, name: str = "per tile"
    ) -> Tensor:
        """Return ``count`` buffers of one shape, as the tiles of a tensor of shape (count, *shape)."""
        if count < 1:
            raise ValueError(f"{name}: count must be at least 1, got {count}")
        # Each starts a cache line of its own, or two workers would write one.
        arrays = [aligned_empty(tuple(shape), np.dtype(dtype)) for _ in range(count)]
        tiles = tuple(Tile(tuple(shape), self.runtime.register(array)) for array in arrays)
        return Tensor((count, *shape), tiles, np.dtype(dtype), name)

    # ---- operations ----

    def submit(self, operation: Operation, *operands: Tensor, priority: int = 0, **scalars: Any) -> None:
        """Submit an operation, or record it inside ``record()``.

        Operands are in the kernel's order and have one tile or as many as the others; those with one tile are shared
        by all tasks. A repeated last operand gives all of its tiles to one task. A scalar may be a list with a value
        for each task, and an integer inside ``record()`` a Step. Raises ShapeError where shapes do not fit and
        ValueError for an output in read-only memory.
        """
        scalars = {**operation.defaults, **scalars}
        # All tasks are checked before the first is submitted: a mistake leaves no half of an operation behind.
        tasks = list(self._tasks(operation, operands, scalars))
        if self._graph is None and any(prepared.strides for prepared in tasks):
            raise ValueError(f"{operation.name}: a Step has a meaning only inside record()")
        for prepared in tasks:
            graph = self.runtime.graph() if self._graph is None else self._graph
            graph.add(
                prepared.codelet,
                [tile.handle for tile in prepared.tiles],
                prepared.args,
                strides=prepared.strides,
                costs=prepared.costs,
                priority=priority,
                tag=prepared.tag,
                footprint=prepared.footprint,
                program=prepared.program,
            )
            if self._graph is None:
                graph.submit()

    @contextmanager
    def record(self) -> Iterator[TaskGraph]:
        """Record the operations submitted inside into a graph instead of running them."""
        if self._graph is not None:
            raise RuntimeError("a graph is being recorded already; end that record() first")
        self._graph = self.runtime.graph()
        self.graphs.append(self._graph)
        try:
            yield self._graph
        finally:
            self._graph = None

    def codelet_names(self) -> list[str]:
        """Return the operations' names by codelet number, as the trace has them."""
        return [codelet.name for codelet in self.runtime.codelets]

    def arches(self, operation: Operation) -> tuple[str, ...]:
        """Return where its tasks may run: on a real GPU where it has a kernel for one."""
        if self.runtime.simulated:
            return operation.arches
        return ("cpu", "cuda") if self.runtime.gpus and operation.cuda else ("cpu",)

    # ---- inside ----

    def _codelet(self, operation: Operation) -> Codelet:
        known = self._codelets.get(operation.name)
        if known is None:
            known = (
                operation,
                self.runtime.codelet(
                    operation.name, operation.kernel, arches=self.arches(operation), model="costs"
                ),
            )
            self._codelets[operation.name] = known
        elif known[0] is not operation:
            raise ValueError(f"two operations are called {operation.name}; give one of them another name")
        return known[1]

    def _tasks(
        self, operation: Operation, operands: Sequence[Tensor], scalars: Mapping[str, Any]
    ) -> Iterator[_Prepared]:
        kernel = operation.kernel
        if len(operands) != len(kernel.operands):
            names = ", ".join(operand.name for operand in kernel.operands)
            raise ShapeError(
                f"{operation.name} takes {len(kernel.operands)} tensors ({names}), got {len(operands)}"
            )
        for tensor, operand in zip(operands, kernel.operands, strict=True):
            if tensor.dtype != np.dtype(operand.dtype):
                raise ShapeError(
                    f"{operation.name}: {operand.name} must be {operand.dtype}, got {tensor.dtype}"
                )
        fixed = operands[:-1] if kernel.repeats else operands
        count = max((tensor.tile_count for tensor in fixed), default=1)
        self._check_tiles(operation, fixed, count)
        self._check_scalars(operation, scalars, count)
        for index in range(count):
            tiles = [tensor.tiles[index if tensor.tile_count > 1 else 0] for tensor in fixed]
            own = {
                name: value[index] if isinstance(value, list) else value for name, value in scalars.items()
            }
            yield self._prepare(operation, tiles, operands[-1].tiles if kernel.repeats else (), own, index)

    @staticmethod
    def _check_tiles(operation: Operation, fixed: Sequence[Tensor], count: int) -> None:
        for tensor, operand in zip(fixed, operation.kernel.operands, strict=False):
            if tensor.tile_count not in (1, count):
                raise ShapeError(
                    f"{operation.name}: {operand.name} has {tensor.tile_count} tiles where others have {count}"
                )
            if operand.mode == "w" and tensor.tile_count < count:
                raise ShapeError(
                    f"{operation.name}: {operand.name} has one tile that {count} tasks would overwrite in turn; "
                    f"give it {count} tiles (Context.per_tile)"
                )
            if operand.mode != "r" and not all(tile.handle.array.flags.writeable for tile in tensor.tiles):
                raise ValueError(
                    f"{operation.name} writes {operand.name}, but {tensor.name} is in read-only memory"
                )

    @staticmethod
    def _check_scalars(operation: Operation, scalars: Mapping[str, Any], count: int) -> None:
        kinds = dict(operation.kernel.scalars)
        if set(scalars) != set(kinds):
            raise TypeError(f"{operation.name} takes the scalars {list(kinds)}, got {sorted(scalars)}")
        for name, value in scalars.items():
            values = value if isinstance(value, list) else [value]
            if isinstance(value, list) and len(value) != count:
                raise ValueError(f"{operation.name}: {name} has {len(value)} values for {count} tasks")
            if kinds[name] != "int64" and any(isinstance(one, Step) for one in values):
                raise ValueError(f"{operation.name}: {name} is no integer, so it cannot be a Step")

    def _prepare(
        self,
        operation: Operation,
        tiles: Sequence[Tile],
        repeated: Sequence[Tile],
        scalars: Mapping[str, Any],
        index: int,
    ) -> _Prepared:
        kernel = operation.kernel
        shapes: dict[str, Any] = {
            operand.name: tile.shape for operand, tile in zip(kernel.operands, tiles, strict=False)
        }
        if kernel.repeats:
            shapes[kernel.operands[-1].name] = tuple(tile.shape for tile in repeated)
        for operand in kernel.operands:
            shape = shapes[operand.name][0] if operand.repeated else shapes[operand.name]
            if len(shape) != operand.ndim:
                raise ShapeError(
                    f"{operation.name}: {operand.name} must have {operand.ndim} dimensions, got {shape}"
                )
        steps = {name: value for name, value in scalars.items() if isinstance(value, Step)}
        values = {name: value.base if isinstance(value, Step) else value for name, value in scalars.items()}
        operation.check(shapes, values)
        scratch = operation.scratch_floats(shapes, values) if operation.scratch_floats else 0
        block_shapes = [shapes[o.name][0] if o.repeated else shapes[o.name] for o in kernel.operands]
        named = list(zip(kernel.operands, tiles, strict=False))
        constants = [tile.handle.array for operand, tile in named if operand.constant]
        program = None
        if self.runtime.gpus and operation.cuda:
            program = self.runtime.gpus.program(kernel, operation.cuda, shapes, values)
        for array in constants:
            self.runtime.keep(array)
            if program is not None and self.runtime.gpus:
                self.runtime.gpus.constant(array)
        strides = {kernel.scalar_position(name): step.stride for name, step in steps.items()}
        key = cost_key(operation, shapes, values)
        return _Prepared(
            self._codelet(operation),
            (*(tile for operand, tile in named if not operand.constant), *repeated),
            kernel.pack(block_shapes, values, scratch, constants),
            strides,
            self._costs_of(key, operation, shapes, values),
            self._footprint(key),
            index,
            program,
        )

    def _footprint(self, key: str) -> int:
        if key not in self._footprint_of:
            self._footprint_of[key] = len(self.footprints)
            self.footprints.append(key)
        return self._footprint_of[key]

    def _costs_of(
        self, key: str, operation: Operation, shapes: Mapping[str, Any], scalars: Mapping[str, Any]
    ) -> Costs:
        if key not in self._costs:
            workers = self.runtime.workers
            lengths = [
                self._cost_model.length_s(worker, operation, shapes, scalars)
                if self._cost_model and worker.arch in self.arches(operation)
                else UNKNOWN
                for worker in workers
            ]
            energies = [
                self._energy_j(worker, length, operation, shapes, scalars)
                for worker, length in zip(workers, lengths, strict=True)
            ]
            self.work[self._footprint(key)] = operation.kind, operation.cost(shapes, scalars)
            factors = [self._estimates.factor(worker.worker_class, key) for worker in workers]
            self._costs[key] = Costs(
                [length * factor for length, factor in zip(lengths, factors, strict=True)],
                [joules * factor for joules, factor in zip(energies, factors, strict=True)],
                self._footprint(key),
                actual=(lengths, energies),
            )
            self.runtime.keep(self._costs[key])
        return self._costs[key]

    def _energy_j(
        self, worker: Worker, length_s: float, operation: Operation, shapes: Mapping[str, Any], scalars: Any
    ) -> float:
        """Joules above idle: by the watts of this kind of task where they were measured, else by the worker's."""
        own_w = self._cost_model.watts(worker, operation, shapes, scalars) if self._cost_model else UNKNOWN
        known = not math.isnan(own_w)
        return own_w * length_s if known else energy_j(self._watts, worker, length_s, operation.name)
