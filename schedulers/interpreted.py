"""Running a policy's own source in the interpreter, for a debugger: the same decisions, far slower."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from schedulers.base import PlacementPolicy, PullPolicy
from schedulers.prepared import PreparedPolicy
from schedulers.views import READY, SYSTEM, TASK, WORKER

_P, _I, _D = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
PLACE = ctypes.CFUNCTYPE(None, _P, _P, _P, _P, _I, _P, _P, _I)
PICK = ctypes.CFUNCTYPE(None, _P, _P, _I, _P, _I, _P, _I, _P, _P, _I)
HOOK = ctypes.CFUNCTYPE(None, _P, _P, _I, _D, _P, _P, _I)


def records(address: int, dtype: np.dtype, *shape: int) -> Any:
    """Return the C records at an address, without a copy, with fields as attributes."""
    size = int(np.prod(shape)) * dtype.itemsize
    buffer: Any = (ctypes.c_char * size).from_address(address)  # NumPy's stubs do not know ctypes arrays
    return np.frombuffer(buffer, dtype).reshape(shape).view(np.recarray)


def floats(address: int, count: int) -> np.ndarray:
    """Return the float64 at an address, without a copy."""
    buffer: Any = (ctypes.c_char * (8 * count)).from_address(address)
    return np.frombuffer(buffer, np.float64)


@final
@dataclass
class InterpretedPolicy(PreparedPolicy):
    """A policy to install in a runtime as it is (the protocol ``dahl.starpu.Policy``); what it raises is kept."""

    policy: PlacementPolicy | PullPolicy
    answer_limit_s: float = 0.0
    """No limit: a debugger takes its time."""
    _kept: list[Any] = field(default_factory=list)
    _raised: list[BaseException] = field(default_factory=list)

    def raised(self) -> BaseException | None:
        """Return the first exception of the policy."""
        return self._raised[0] if self._raised else None

    def entry(self) -> int:
        """Return the address of a C function that calls the method."""
        return self._keep(PLACE(self._place) if self.kind == "placement" else PICK(self._pick))

    def hooks(self) -> dict[str, int]:
        """Return the addresses of C functions that call the hooks."""
        known: dict[str, Callable[..., None]] = {"task_started": self._started, "task_ended": self._ended}
        return {name.removeprefix("task_"): self._keep(HOOK(known[name])) for name in self.policy.HOOKS}

    def _keep(self, callback: Any) -> int:
        self._kept.append(callback)
        return int(ctypes.cast(callback, ctypes.c_void_p).value or 0)

    def _guarded(self, status: int, decide: Callable[[], int | None], answer: int | None) -> None:
        """Run the policy; a raise leaves the status poisoned, which C reads as a failure."""
        try:
            chosen = decide()
        except BaseException as error:
            self._raised.append(error)
            return
        if answer is not None:
            ctypes.c_int64.from_address(answer).value = int(chosen)  # type: ignore[arg-type]  # None: TypeError
        ctypes.c_int32.from_address(status).value = 0

    @property
    def _policy(self) -> Any:
        """The policy, with the methods that its family and HOOKS say it has."""
        return self.policy

    def _place(
        self, status: int, answer: int, task: int, workers: int, n: int, system: int, memory: int, m: int
    ) -> None:
        def decide() -> int:
            views = records(task, TASK, 1)[0], records(workers, WORKER, n), records(system, SYSTEM, 1)[0]
            return self._policy.place(*views, floats(memory, m))

        self._guarded(status, decide, answer)

    def _pick(
        self,
        status: int,
        answer: int,
        worker: int,
        ready: int,
        rows: int,
        workers: int,
        n: int,
        system: int,
        memory: int,
        m: int,
    ) -> None:
        def decide() -> int:
            views = (
                records(ready, READY, rows),
                records(workers, WORKER, rows, n),
                records(system, SYSTEM, 1)[0],
            )
            return self._policy.pick(worker, *views, floats(memory, m))

        self._guarded(status, decide, answer)

    def _started(
        self, status: int, task: int, worker: int, length_s: float, system: int, memory: int, m: int
    ) -> None:
        def decide() -> None:
            views = records(task, TASK, 1)[0], worker, records(system, SYSTEM, 1)[0]
            self._policy.task_started(*views, floats(memory, m))

        self._guarded(status, decide, None)

    def _ended(
        self, status: int, task: int, worker: int, length_s: float, system: int, memory: int, m: int
    ) -> None:
        def decide() -> None:
            views = records(task, TASK, 1)[0], worker, length_s, records(system, SYSTEM, 1)[0]
            self._policy.task_ended(*views, floats(memory, m))

        self._guarded(status, decide, None)
