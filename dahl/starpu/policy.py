"""What the runtime asks of a scheduling policy written outside StarPU, and of the watts that it sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, final

import numpy as np

from dahl.starpu.errors import MEASURED_BY, CostUnknownError, check
from dahl.starpu.worker import Worker

if TYPE_CHECKING:
    from dahl.starpu.task import TaskGraph


NEEDS = ("length_s", "energy_j", "idle_w", "busy_w")
"""What a policy may need: seconds and joules of each task on each worker that can run it, the idle watts of the machine
and its workers, the busy watts of the workers."""


class Policy(Protocol):
    """A compiled policy: an entry of C type ``dahl_place`` or ``dahl_pick`` (csrc/dahl.h) and its own memory."""

    @property
    def name(self) -> str:
        """The name in messages and records."""

    @property
    def kind(self) -> Literal["placement", "pull"]:
        """Which of the two families it belongs to."""

    @property
    def needs(self) -> tuple[str, ...]:
        """What has to be known before the first task, out of NEEDS."""

    def entry(self) -> int:
        """Return the address of the compiled function; it has to stay valid as long as the policy lives."""

    @property
    def answer_limit_s(self) -> float:
        """How long one answer may take before the process is ended; 0 waits for ever."""

    def hooks(self) -> dict[str, int]:
        """Return the addresses of the functions to be told of starts and ends: ``started``, ``ended``."""

    def memory_size(self) -> int:
        """Return how many float64 of its own the policy wants."""

    def check_machine(self, workers: Sequence[WorkerState], base_w: float) -> None:
        """Raise ValueError where the policy cannot work on these workers; called before the first task."""

    def plan(
        self, kinds: Sequence[TaskKind], workers: Sequence[WorkerState], base_w: float, memory: np.ndarray
    ) -> None:
        """Prepare ``memory`` for tasks of these kinds to come; a policy that does not plan does nothing."""

    def lays_out(self) -> bool:
        """Return whether ``lay_out`` wants to be called: what it takes is not made for nobody."""

    def lay_out(
        self,
        graphs: Sequence[GraphLayout],
        links: LinkTimes,
        workers: Sequence[WorkerState],
        base_w: float,
        memory: np.ndarray,
    ) -> None:
        """Prepare ``memory`` for these very tasks, after ``plan``."""

    def raised(self) -> BaseException | None:
        """Return what the policy raised, where it keeps that itself."""


@final
@dataclass(frozen=True)
class WorkerWatts:
    """Watts of one worker: asleep and computing; NaN where unknown. ``domain`` numbers what one meter covers.

    ``busy_w_by_codelet`` holds, in place of ``busy_w``, those of some codelets by name.
    """

    idle_w: float
    busy_w: float
    domain: int = 0
    busy_w_by_codelet: Mapping[str, float] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class MachineWatts:
    """Watts of the machine without its workers, and of each worker by its id."""

    base_w: float
    workers: tuple[WorkerWatts, ...]


@final
@dataclass(frozen=True)
class TaskKind:
    """Tasks of one codelet and cost that a plan has to count with: seconds and joules by worker, NaN where unknown."""

    codelet: int
    footprint: int
    count: int
    can_run: tuple[bool, ...]
    length_s: tuple[float, ...]
    energy_j: tuple[float, ...]


@final
@dataclass(frozen=True)
class WorkerState:
    """A worker as a plan sees it."""

    worker: Worker
    class_number: int
    watts: WorkerWatts


@final
@dataclass(frozen=True)
class GraphLayout:
    """The tasks of a recorded graph that is to be submitted ``times`` times.

    ``kinds`` has by task the row in ``can_run``, ``length_s`` and ``energy_j``, which are (kinds, workers) and NaN
    where unknown. ``accesses`` are by task the data, as places in ``data_bytes``, and whether it reads and writes each.
    ``before`` are by task those of the graph that it waits for, ``before_next`` those of the submission before.
    """

    number: int
    times: int
    kinds: np.ndarray
    can_run: np.ndarray
    length_s: np.ndarray
    energy_j: np.ndarray
    data_bytes: np.ndarray
    accesses: tuple[tuple[tuple[int, bool, bool], ...], ...]
    before: tuple[tuple[int, ...], ...]
    before_next: tuple[tuple[int, ...], ...]


@final
@dataclass(frozen=True)
class LinkTimes:
    """What an idle link takes from one memory node (row) to another (column), as StarPU knows it; NaN: unknown."""

    latency_s: np.ndarray
    s_per_byte: np.ndarray


WattsOf = Callable[[tuple[Worker, ...]], MachineWatts]
"""Called once the workers are known."""


@final
class InstalledPolicy:
    """The C structure of a policy with the arrays that it points into."""

    def __init__(
        self,
        ffi: Any,
        policy: Policy,
        capacity: int,
        *,
        explain: bool = False,
        replayed_watts: Sequence[tuple[float, float]] = (),
        live_watts: np.ndarray | None = None,
    ) -> None:
        unheard = sorted(set(policy.needs) - set(NEEDS))
        if unheard:
            raise ValueError(f"policy {policy.name} needs {unheard[0]}; it may need {', '.join(NEEDS)}")
        self.policy = policy
        self.memory = np.zeros(policy.memory_size(), np.float64)
        self.idle_w = np.full(capacity, np.nan)
        self.busy_w = np.full(capacity, np.nan)
        self.domain = np.zeros(capacity, np.int32)
        self.worker_class = np.zeros(capacity, np.int32)
        self.live = np.full(2, np.nan) if live_watts is None else live_watts
        if self.live.shape != (2,) or self.live.dtype != np.float64:
            raise ValueError(
                f"live_watts must be two float64, got {self.live.dtype} of shape {self.live.shape}"
            )
        self.replay = np.array(replayed_watts, np.float64).reshape(-1, 2)
        if (np.diff(self.replay[:, 0]) < 0).any() or not np.isfinite(self.replay).all():
            raise ValueError("replayed_watts must be finite pairs of second and watts, ordered by time")
        self._name = ffi.new("char[]", policy.name.encode())
        self.struct = ffi.new("dahl_policy *")
        self.struct.name = self._name
        kind, entry = ("dahl_place", "place") if policy.kind == "placement" else ("dahl_pick", "pick")
        setattr(self.struct, entry, ffi.cast(kind, policy.entry()))
        for name, address in policy.hooks().items():
            setattr(self.struct, name, ffi.cast("dahl_hook", address))
        for name in ("memory", "idle_w", "busy_w", "live"):
            setattr(self.struct, name, ffi.cast("double *", getattr(self, name).ctypes.data))
        if self.replay.size:
            self.struct.replay = ffi.cast("double *", self.replay.ctypes.data)
            self.struct.nreplay = len(self.replay)
        self.struct.nmemory = self.memory.size
        self.struct.base_w = float("nan")
        self.struct.power_domain = ffi.cast("int32_t *", self.domain.ctypes.data)
        self.struct.worker_class = ffi.cast("int32_t *", self.worker_class.ctypes.data)
        self.struct.explain = int(explain)
        self.struct.answer_limit_s = policy.answer_limit_s
        self.base_w = float("nan")

    def describe(self, lib: Any, workers: tuple[Worker, ...], watts: MachineWatts | None) -> None:
        """Fill in, once the workers are known, their classes and their watts."""
        names = sorted({worker.worker_class for worker in workers})
        for worker in workers:
            self.worker_class[worker.id] = names.index(worker.worker_class)
            if watts:
                self.idle_w[worker.id] = watts.workers[worker.id].idle_w
                self.busy_w[worker.id] = watts.workers[worker.id].busy_w
                self.domain[worker.id] = watts.workers[worker.id].domain
        if watts:
            self.base_w = watts.base_w
            check(lib.dahl_set_base_w(watts.base_w), "setting the machine's base watts")
        self._check_watts(workers)
        self.policy.check_machine(self._states(workers), self.base_w)

    def plan(self, kinds: Sequence[TaskKind], workers: tuple[Worker, ...]) -> None:
        """Let the policy prepare its memory for tasks to come."""
        self.policy.plan(kinds, self._states(workers), self.base_w, self.memory)

    def lay_out(self, graphs: Sequence[GraphLayout], links: LinkTimes, workers: tuple[Worker, ...]) -> None:
        """Let the policy prepare its memory for these very tasks."""
        self.policy.lay_out(graphs, links, self._states(workers), self.base_w, self.memory)

    def _states(self, workers: tuple[Worker, ...]) -> list[WorkerState]:
        return [
            WorkerState(
                worker,
                int(self.worker_class[worker.id]),
                WorkerWatts(self.idle_w[worker.id], self.busy_w[worker.id], int(self.domain[worker.id])),
            )
            for worker in workers
        ]

    def _check_watts(self, workers: tuple[Worker, ...]) -> None:
        """Raise CostUnknownError where watts that the policy needs are unknown."""
        unknown = [
            f"{name} of {worker.name}"
            for name, watts in (("idle_w", self.idle_w), ("busy_w", self.busy_w))
            for worker in workers
            if name in self.policy.needs and np.isnan(watts[worker.id])
        ]
        if "idle_w" in self.policy.needs and np.isnan(self.base_w):
            unknown.insert(0, "base_w of the machine")
        if unknown:
            raise CostUnknownError(
                f"policy {self.policy.name} needs {unknown[0]}, which is unknown: "
                f"{MEASURED_BY}, Runtime(watts=...) takes it"
            )


def task_kinds(graphs: Sequence[tuple[TaskGraph, int]], workers: tuple[Worker, ...]) -> list[TaskKind]:
    """Return the kinds of task of some graphs, each submitted so many times."""
    found: dict[tuple[int, int], TaskKind] = {}
    for graph, times in graphs:
        for key, (codelet, costs, count) in graph.kinds().items():
            before = found[key].count if key in found else 0
            unknown = [float("nan")] * len(workers)
            found[key] = TaskKind(
                codelet.id,
                costs.footprint if costs else 0,
                before + count * times,
                tuple(worker.arch in codelet.arches for worker in workers),
                tuple(costs.length_s.tolist() if costs else unknown),
                tuple(costs.energy_j.tolist() if costs else unknown),
            )
    return list(found.values())
