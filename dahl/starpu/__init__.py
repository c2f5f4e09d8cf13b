"""starpu-py: StarPU from Python, natively and simulated. It needs no CNN.

from dahl import starpu

with starpu.Runtime(scheduler="eager") as runtime:
    empty = runtime.codelet("empty")
    for _ in range(1000):
        runtime.submit(empty)
    runtime.wait_all()
"""

from dahl.starpu.binding import schedulers, version
from dahl.starpu.data import DataHandle
from dahl.starpu.errors import (
    AlreadyRunningError,
    BadArgumentError,
    CancelledError,
    CostUnknownError,
    GpuError,
    GpuMemoryError,
    InitError,
    KernelError,
    NoEligibleWorkerError,
    NoGpuError,
    NoSimGridError,
    NotRunningError,
    NoWorkerError,
    OutOfMemoryError,
    PolicyAnswerError,
    PolicyRaisedError,
    PolicyStarvedError,
    StarPUError,
    TasksPendingError,
    UnknownSchedulerError,
    VariantError,
)
from dahl.starpu.kernel import Kernel, Operand, compile_kernel, inline_kernel
from dahl.starpu.noise import Noise
from dahl.starpu.overheads import Overheads
from dahl.starpu.platform import Gpu, Link, Platform
from dahl.starpu.policy import MachineWatts, Policy, TaskKind, WorkerState, WorkerWatts
from dahl.starpu.runtime import Runtime
from dahl.starpu.task import Codelet, Costs, RecordedTask, Step, TaskGraph
from dahl.starpu.trace import DECISION, TRACE
from dahl.starpu.weight import EnergyWeight
from dahl.starpu.worker import Worker

__all__ = [
    "DECISION",
    "TRACE",
    "AlreadyRunningError",
    "BadArgumentError",
    "CancelledError",
    "Codelet",
    "CostUnknownError",
    "Costs",
    "DataHandle",
    "EnergyWeight",
    "Gpu",
    "GpuError",
    "GpuMemoryError",
    "InitError",
    "Kernel",
    "KernelError",
    "Link",
    "MachineWatts",
    "NoEligibleWorkerError",
    "NoGpuError",
    "NoSimGridError",
    "NoWorkerError",
    "Noise",
    "NotRunningError",
    "Operand",
    "OutOfMemoryError",
    "Overheads",
    "Platform",
    "Policy",
    "PolicyAnswerError",
    "PolicyRaisedError",
    "PolicyStarvedError",
    "RecordedTask",
    "Runtime",
    "StarPUError",
    "Step",
    "TaskGraph",
    "TaskKind",
    "TasksPendingError",
    "UnknownSchedulerError",
    "VariantError",
    "Worker",
    "WorkerState",
    "WorkerWatts",
    "compile_kernel",
    "inline_kernel",
    "schedulers",
    "version",
]
