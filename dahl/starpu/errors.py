"""Errors of the bindings: one class for each status that the C layer returns."""

from __future__ import annotations

from typing import ClassVar

MEASURED_BY = "`python -m experiments.calibrate` measures it"
"""What an error says of an expectation that is missing."""


class StarPUError(RuntimeError):
    """Base of the errors that a status of the C layer stands for."""

    status: ClassVar[int]


class OutOfMemoryError(StarPUError):
    """The C layer could not allocate."""

    status = 1


class BadArgumentError(StarPUError, ValueError):
    """A call's arguments are outside of what StarPU accepts."""

    status = 2


class NotRunningError(StarPUError):
    """StarPU is not running: the call belongs inside ``with Runtime(...)`` or ``Runtime(...).run(...)``."""

    status = 3


class AlreadyRunningError(StarPUError):
    """StarPU runs once a process at a time; it is running already."""

    status = 4


class NoWorkerError(StarPUError):
    """StarPU found no worker to run tasks."""

    status = 5


class InitError(StarPUError):
    """``starpu_init`` failed."""

    status = 6


class UnknownSchedulerError(StarPUError, ValueError):
    """No scheduling policy has that name."""

    status = 7


class NoEligibleWorkerError(StarPUError):
    """No worker can run the task's codelet (StarPU's ENODEV)."""

    status = 8


class KernelError(StarPUError):
    """A kernel raised; the exception is the ``__cause__`` where it is known."""

    status = 9


class PolicyRaisedError(StarPUError):
    """A scheduling policy raised; the exception is the ``__cause__`` where it is known."""

    status = 10


class PolicyAnswerError(StarPUError):
    """A scheduling policy answered something that is no eligible worker or no row of ready tasks."""

    status = 11


class PolicyStarvedError(StarPUError):
    """A scheduling policy left every worker idle while tasks waited."""

    status = 12


class CostUnknownError(StarPUError):
    """An expected duration or energy that is needed is not known."""

    status = 13


class TasksPendingError(StarPUError):
    """The call needs that no task is left; wait for them first."""

    status = 14


class NoSimGridError(StarPUError):
    """The loaded StarPU cannot simulate."""

    status = 15


class CancelledError(StarPUError):
    """The run was cancelled; kernels are skipped since."""

    status = 16


class NoGpuError(StarPUError):
    """There is no GPU that can be used."""

    status = 17


class GpuError(StarPUError):
    """A GPU, its driver or cuBLAS refused what was asked of it."""

    status = 18


class GpuMemoryError(GpuError):
    """The GPU has no memory left for what was asked of it."""

    status = 19


class VariantError(StarPUError):
    """The wanted variant of StarPU is not built, or another one is loaded in this process already."""

    status = -1


_CLASSES: list[type[StarPUError]] = [*StarPUError.__subclasses__(), GpuMemoryError]

ERRORS: dict[int, type[StarPUError]] = {error.status: error for error in _CLASSES if error.status > 0}


def check(status: int, doing: str) -> None:
    """Raise the error that a status stands for; 0 raises nothing."""
    if status == 0:
        return
    error = ERRORS.get(status)
    if error is None:
        raise StarPUError(f"{doing}: unknown status {status}")
    summary = (error.__doc__ or "").splitlines()[0].rstrip(".")
    raise error(f"{doing}: {summary[0].lower()}{summary[1:]}")


def failure_error(
    status: int, task: str, policy: str, worker: int, answer: int, cause: BaseException | None
) -> StarPUError:
    """Return the error that a failed task's status stands for, with what failed in its message."""
    because = f": {type(cause).__name__}: {cause}" if cause else ""
    messages: dict[type[StarPUError], str] = {
        KernelError: f"{task} failed on worker {worker}{because}",
        PolicyRaisedError: f"policy {policy} raised at {task}{because}",
        PolicyAnswerError: f"policy {policy} answered {answer} for {task}, "
        "which is none of the workers or rows that can take it",
        PolicyStarvedError: f"policy {policy} left every worker idle while {task} waited",
        CostUnknownError: f"policy {policy} needs expected times and energies, and those of {task} are unknown: "
        f"{MEASURED_BY}",
        GpuError: f"{task} failed on GPU worker {worker}: CUDA or cuBLAS answered {answer}",
        GpuMemoryError: f"{task} failed on GPU worker {worker}: the GPU has no memory left",
    }
    error = ERRORS.get(status, StarPUError)
    if error in messages:
        return error(messages[error])
    summary = (error.__doc__ or "").splitlines()[0].rstrip(".")
    return error(f"submitting or waiting: {summary[0].lower()}{summary[1:]}")
