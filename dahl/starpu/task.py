"""Codelets, tasks and recorded task graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np

from dahl.starpu.data import MODES, DataHandle
from dahl.starpu.dependencies import Dependencies, dependencies
from dahl.starpu.errors import MEASURED_BY, CostUnknownError, check
from dahl.starpu.kernel import Kernel, Mode, compile_kernel

if TYPE_CHECKING:
    from dahl.starpu.runtime import Runtime

Model = Literal["none", "costs", "history"]
MODELS: dict[str, int] = {"none": 0, "costs": 1, "history": 2}

NODE = np.dtype(
    [
        ("codelet", np.uint64),
        ("costs", np.uint64),
        ("tag", np.int64),
        ("footprint", np.int64),
        ("first_handle", np.int64),
        ("nhandles", np.int64),
        ("first_arg", np.int64),
        ("nargs", np.int64),
        ("b_level_s", np.float64),
        ("priority", np.int32),
        ("graph", np.int32),
        ("program", np.uint64),
    ],
    align=True,
)
"""``dahl_node`` of csrc/dahl.h."""


@final
@dataclass(frozen=True)
class Step:
    """An integer scalar of a recorded task that moves: ``base + step * stride`` at each submission."""

    base: int
    stride: int


@final
class Costs:
    """Expected seconds and joules (net of idle) of one kind of task on each worker; NaN where unknown.

    ``actual`` are the seconds and joules that it really takes in a simulation; None: as expected.

    Source: StarPU asks for them through ``starpu_perfmodel.arch_cost_function``.
    """

    __slots__ = ("address", "checked", "footprint", "mean_length_s", "table")

    def __init__(
        self,
        length_s: Sequence[float],
        energy_j: Sequence[float],
        footprint: int = 0,
        *,
        actual: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        if len(length_s) != len(energy_j):
            raise ValueError(
                f"{len(length_s)} lengths but {len(energy_j)} energies; both are given for each worker"
            )
        self.table = np.array([length_s, energy_j, *(actual or (length_s, energy_j))], dtype=np.float64)
        self.address: int = self.table.ctypes.data
        self.footprint = footprint
        self.checked: set[int] = set()
        known = self.table[0][~np.isnan(self.table[0])]
        self.mean_length_s = float(known.mean()) if known.size else float("nan")
        lengths = self.table[::2][~np.isnan(self.table[::2])]
        if (lengths <= 0).any() or not np.isfinite(lengths).all():
            raise ValueError(f"an expected length must be above 0 s and finite, or NaN: got {list(length_s)}")

    @property
    def length_s(self) -> np.ndarray:
        """Seconds by worker."""
        view: np.ndarray = self.table[0]
        return view

    @property
    def energy_j(self) -> np.ndarray:
        """Joules by worker."""
        view: np.ndarray = self.table[1]
        return view

    @property
    def actual(self) -> np.ndarray:
        """Seconds and joules by worker that the task takes in a simulation."""
        view: np.ndarray = self.table[2:]
        return view


@final
class Codelet:
    """What a kind of task runs, where, how it accesses its data, and how its length is predicted.

    ``kernel`` None is the empty task. ``model`` is ``costs`` (given with each task), ``history`` (StarPU's own,
    measured as tasks run, kept under ``symbol``) or ``none``. A simulation never runs the kernel.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        kernel: Kernel | None = None,
        *,
        arches: Sequence[str] = ("cpu",),
        model: Model = "none",
        symbol: str | None = None,
    ) -> None:
        unknown = set(arches) - {"cpu", "cuda"}
        if unknown or not arches:
            raise ValueError(f"codelet {name}: arches must be cpu and/or cuda, got {list(arches)}")
        if model not in MODELS:
            raise ValueError(f"codelet {name}: model must be one of {', '.join(MODELS)}, got {model!r}")
        self.name, self.kernel, self.model = name, kernel, model
        self.arches = tuple(arches)
        self.id = runtime.adopt(self)
        ffi, lib = runtime.ffi, runtime.lib
        operands = kernel.handled if kernel else ()
        entry = (
            0
            if kernel is None or runtime.simulated or "cpu" not in arches
            else compile_kernel(kernel).address
        )
        out = ffi.new("dahl_codelet **")
        status = lib.dahl_codelet_new(
            name.encode(),
            (symbol or name).encode(),
            self.id,
            ffi.cast("dahl_kernel", entry),
            sum({"cpu": 1, "cuda": 2}[arch] for arch in self.arches),
            [MODES[operand.mode] for operand in operands],
            len(operands),
            int(kernel.repeats if kernel else False),
            MODELS[model],
            out,
        )
        check(status, f"making codelet {name} with {len(operands)} operands")
        self._modes = [operand.mode for operand in operands]
        self.pointer: Any = out[0]
        self.address: int = int(ffi.cast("uintptr_t", out[0]))

    def mode(self, position: int) -> Mode:
        """Return how the handle at a position is accessed; a repeated operand's stands for all that follow."""
        return self._modes[min(position, len(self._modes) - 1)]


@final
@dataclass(frozen=True)
class RecordedTask:
    """One task of a graph: what it runs, on which data, with which block of arguments."""

    codelet: Codelet
    handles: tuple[DataHandle, ...]
    args: np.ndarray
    footprint: int
    costs: Costs | None = None
    program: np.ndarray | None = None


@final
class TaskGraph:
    """Prepared tasks that one call submits, any number of times.

    Made by ``Runtime.graph()``. Handles and codelets stay alive with it.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.number = runtime.number_graph()
        """By which a policy knows the graph."""
        self._nodes: list[tuple[float, ...]] = []
        self._codelets: list[Codelet] = []
        self._costs: list[Costs | None] = []
        self._handles: list[DataHandle] = []
        self._args: list[np.ndarray] = []
        self._programs: list[np.ndarray | None] = []
        self._strides: list[tuple[int, int]] = []
        self._nargs = 0
        self._frozen: tuple[Any, ...] | None = None
        self._forgotten = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def add(
        self,
        codelet: Codelet,
        handles: Sequence[DataHandle] = (),
        args: np.ndarray | None = None,
        *,
        strides: Mapping[int, int] | None = None,
        costs: Costs | None = None,
        priority: int = 0,
        tag: int = 0,
        footprint: int = 0,
        program: np.ndarray | None = None,
    ) -> None:
        """Append a task. ``args`` is the kernel's block; ``strides`` says by position what moves with the step.

        ``program`` is what it runs on a GPU (Runtime.program).
        """
        check_costs(self._runtime, codelet, costs)
        self._runtime.check_fits(codelet, handles)
        pointers_of(handles)  # refuses one that is unregistered
        block = np.empty(0, np.int64) if args is None else args
        self._nodes.append(
            (
                codelet.address,
                costs.address if costs else 0,
                tag,
                footprint,
                len(self._handles),
                len(handles),
                self._nargs,
                block.size,
                np.nan,
                priority,
                self.number,
                0 if program is None else program.ctypes.data,
            )
        )
        self._programs.append(program)
        self._strides += [(self._nargs + at, stride) for at, stride in (strides or {}).items()]
        self._handles += handles
        self._args.append(block)
        self._nargs += block.size
        self._codelets.append(codelet)
        self._costs.append(costs)
        self._frozen = None

    def submit(self, step: int = 0) -> None:
        """Submit every task, in the order in which they were added.

        Raises ValueError where data that a task needs are unregistered by now.
        """
        check_submission(self._runtime, self._runtime.lib.dahl_submit(*self.frozen(), step))

    def frozen(self) -> tuple[Any, ...]:
        """Return the fields of a ``dahl_graph``, which last until a task is added."""
        if self._frozen is None or self._forgotten != self._runtime.forgotten:
            self._frozen = self._freeze()
        return self._frozen

    def b_levels_s(self) -> np.ndarray:
        """Return by task the longest way from its start to the graph's end, in mean lengths; NaN where unknown."""
        lengths = np.array([np.nan if costs is None else costs.mean_length_s for costs in self._costs])
        levels = lengths.copy()
        after: dict[int, float] = {}  # by handle: the longest way from a later task that writes it
        after_any: dict[int, float] = {}  # and from one that reads or writes it
        at = len(self._handles)
        for task in range(len(self._nodes) - 1, -1, -1):
            codelet = self._codelets[task]
            count = int(self._nodes[task][5])
            at -= count
            uses = [(id(handle), codelet.mode(i)) for i, handle in enumerate(self._handles[at : at + count])]
            follow = [(after if mode == "r" else after_any).get(handle, 0.0) for handle, mode in uses]
            levels[task] += max(follow, default=0.0)
            for handle, mode in uses:
                after_any[handle] = max(after_any.get(handle, 0.0), levels[task])
                if mode != "r":
                    after[handle] = max(after.get(handle, 0.0), levels[task])
        return levels

    def tasks(self) -> list[RecordedTask]:
        """Return the tasks in the order in which they were added; arguments that move stand as in step 0."""
        found = []
        parts = zip(self._nodes, self._codelets, self._args, self._costs, self._programs, strict=True)
        for node, codelet, args, costs, program in parts:
            footprint, first, count = (int(field) for field in node[3:6])
            handles = tuple(self._handles[first : first + count])
            found.append(RecordedTask(codelet, handles, args, footprint, costs, program))
        return found

    def kinds(self) -> dict[tuple[int, int], tuple[Codelet, Costs | None, int]]:
        """Return the kinds of task, by codelet and costs, with the number of each."""
        found: dict[tuple[int, int], tuple[Codelet, Costs | None, int]] = {}
        for codelet, costs in zip(self._codelets, self._costs, strict=True):
            key = codelet.id, id(costs)
            found[key] = (codelet, costs, found[key][2] + 1 if key in found else 1)
        return found

    def accesses(self) -> list[list[tuple[DataHandle, Mode]]]:
        """Return the data of each task, and how it accesses them."""
        found = []
        for codelet, node in zip(self._codelets, self._nodes, strict=True):
            first, count = int(node[4]), int(node[5])
            handles = self._handles[first : first + count]
            found.append([(handle, codelet.mode(i)) for i, handle in enumerate(handles)])
        return found

    def dependencies(self) -> Dependencies:
        """Return the order of the tasks, and of those of two submissions in a row; data are ``id(handle)``."""
        return dependencies([[(id(handle), mode) for handle, mode in used] for used in self.accesses()])

    def _freeze(self) -> tuple[Any, ...]:
        ffi = self._runtime.ffi
        self._forgotten = self._runtime.forgotten
        nodes = np.array(self._nodes, NODE)
        nodes["b_level_s"] = self.b_levels_s()
        handles = np.array([handle.registered_pointer() for handle in self._handles] or [0], np.uint64)
        args = np.concatenate([*self._args, np.zeros(1, np.int64)])
        strides = np.zeros(args.size, np.int64)
        for at, stride in self._strides:
            strides[at] = stride
        self._arrays = (nodes, handles, args, strides)
        pointers = [
            ffi.cast(kind, array.ctypes.data)
            for kind, array in zip(
                ("dahl_node *", "void **", "int64_t *", "int64_t *"), self._arrays, strict=True
            )
        ]
        return pointers[0], len(nodes), *pointers[1:]


def pointers_of(handles: Sequence[DataHandle]) -> list[int]:
    """Return the handles' addresses. Raises ValueError where one is unregistered: StarPU would crash."""
    pointers = [handle.pointer for handle in handles]
    if 0 in pointers:
        raise ValueError(f"handle {pointers.index(0)} of the task is unregistered; register its array again")
    return pointers


def check_costs(runtime: Runtime, codelet: Codelet, costs: Costs | None) -> None:
    """Refuse a task whose length (in a simulation), or whose length or energy that the policy needs, is unknown."""
    if costs and codelet.id in costs.checked:
        return
    simulated_needs = {"length_s"} if runtime.simulated and codelet.model != "history" else set()
    for name in ("length_s", "energy_j"):
        if name not in simulated_needs | runtime.policy_needs:
            continue
        for worker in runtime.workers:
            unknown = costs is None or np.isnan(getattr(costs, name)[worker.id])
            if unknown and worker.arch in codelet.arches:
                by_policy = name in runtime.policy_needs
                who = f"policy {runtime.scheduler_name}" if by_policy else "the simulation"
                raise CostUnknownError(
                    f"{who} needs {name} of {codelet.name} on {worker.name}, which is unknown: {MEASURED_BY}"
                )
    if costs:
        costs.checked.add(codelet.id)


def check_submission(runtime: Runtime, status: int) -> None:
    """Raise what a submission's or a wait's status stands for, with the failed task where there is one."""
    if status:
        runtime.raise_failure(status)
