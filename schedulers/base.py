"""What a scheduling policy is: a frozen dataclass with one method, compiled to a C function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

MEMORY_FLOATS = 65536
"""Float64 of its own that every policy has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementPolicy(ABC):
    """Asked when a task becomes ready; answers the worker that is to run it."""

    NEEDS: ClassVar[tuple[str, ...]] = ("length_s", "energy_j")
    """What has to be known before the first task: ``length_s`` and ``energy_j`` of each task on each worker that can
    run it, ``idle_w`` of the machine and its workers, ``busy_w`` of the workers. The rest may be NaN."""
    CHECKS: ClassVar[bool] = False
    """Whether the policy has ``check_machine``, which refuses a machine on which it cannot work."""
    HOOKS: ClassVar[tuple[str, ...]] = ()
    """Which of ``task_started`` and ``task_ended`` the policy has."""
    PLANS: ClassVar[bool] = False
    """Whether the policy has ``plan``, which fills its memory before the first task and before each epoch."""
    LAYS_OUT: ClassVar[bool] = False
    """Whether the policy has ``lay_out``, which is called after ``plan`` with the very tasks and their order."""

    @abstractmethod
    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the id of a worker whose ``can_run`` is set.

        ``task`` is a TASK record, ``workers`` an array of WORKER records by worker id, ``system`` a SYSTEM record
        (schedulers/views.py), ``memory`` the policy's own float64 array, zero at the start.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PullPolicy(ABC):
    """Asked by an idle worker; answers which kind of ready task it takes, or -1 to stay idle."""

    NEEDS: ClassVar[tuple[str, ...]] = ("length_s", "energy_j")
    """What has to be known before the first task: ``length_s`` and ``energy_j`` of each task on each worker that can
    run it, ``idle_w`` of the machine and its workers, ``busy_w`` of the workers. The rest may be NaN."""
    CHECKS: ClassVar[bool] = False
    """Whether the policy has ``check_machine``, which refuses a machine on which it cannot work."""
    HOOKS: ClassVar[tuple[str, ...]] = ()
    """Which of ``task_started`` and ``task_ended`` the policy has."""
    PLANS: ClassVar[bool] = False
    """Whether the policy has ``plan``, which fills its memory before the first task and before each epoch."""
    LAYS_OUT: ClassVar[bool] = False
    """Whether the policy has ``lay_out``, which is called after ``plan`` with the very tasks and their order."""

    @abstractmethod
    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return a row of ``ready``, or -1: the worker then sleeps until something changes.

        ``ready`` has a READY record for each kind of ready task that ``worker`` can run, ``workers[row, w]`` is a
        WORKER record for that kind; ``system`` and ``memory`` are as for placement.
        """


Kind = Literal["placement", "pull"]
