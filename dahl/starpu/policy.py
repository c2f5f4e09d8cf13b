"""What the runtime asks of a scheduling policy written outside StarPU, and of the watts that it sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, final

import numpy as np

from dahl.starpu.errors import check
from dahl.starpu.worker import Worker


class Policy(Protocol):
    """A compiled policy: an entry of C type ``dahl_place`` or ``dahl_pick`` (csrc/dahl.h) and its own memory."""

    @property
    def name(self) -> str:
        """The name in messages and records."""

    @property
    def kind(self) -> Literal["placement", "pull"]:
        """Which of the two families it belongs to."""

    @property
    def needs_costs(self) -> bool:
        """Whether each task has to come with its expected seconds and joules."""

    def entry(self) -> int:
        """Return the address of the compiled function; it has to stay valid as long as the policy lives."""

    def memory_size(self, workers: int) -> int:
        """Return how many float64 of its own the policy wants on a machine of so many workers."""


@final
@dataclass(frozen=True)
class WorkerWatts:
    """Watts of one worker: asleep and computing; NaN where unknown. ``domain`` numbers what one meter covers."""

    idle_w: float
    busy_w: float
    domain: int = 0


@final
@dataclass(frozen=True)
class MachineWatts:
    """Watts of the machine without its workers, and of each worker by its id."""

    base_w: float
    workers: tuple[WorkerWatts, ...]


WattsOf = Callable[[tuple[Worker, ...]], MachineWatts]
"""Called once the workers are known."""


@final
class InstalledPolicy:
    """The C structure of a policy with the arrays that it points into."""

    def __init__(self, ffi: Any, policy: Policy, capacity: int) -> None:
        self.policy = policy
        self.memory = np.zeros(max(1, policy.memory_size(capacity)), np.float64)
        self.idle_w = np.full(capacity, np.nan)
        self.busy_w = np.full(capacity, np.nan)
        self.domain = np.zeros(capacity, np.int32)
        self.worker_class = np.zeros(capacity, np.int32)
        self._name = ffi.new("char[]", policy.name.encode())
        entry = policy.entry()
        self.struct = ffi.new("dahl_policy *")
        self.struct.name = self._name
        if policy.kind == "placement":
            self.struct.place = ffi.cast("dahl_place", entry)
        else:
            self.struct.pick = ffi.cast("dahl_pick", entry)
        self.struct.memory = ffi.cast("double *", self.memory.ctypes.data)
        self.struct.nmemory = self.memory.size
        self.struct.base_w = float("nan")
        self.struct.idle_w = ffi.cast("double *", self.idle_w.ctypes.data)
        self.struct.busy_w = ffi.cast("double *", self.busy_w.ctypes.data)
        self.struct.power_domain = ffi.cast("int32_t *", self.domain.ctypes.data)
        self.struct.worker_class = ffi.cast("int32_t *", self.worker_class.ctypes.data)

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
            check(lib.dahl_set_base_w(watts.base_w), "setting the machine's base watts")
