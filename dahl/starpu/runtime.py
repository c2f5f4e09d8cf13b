"""The runtime: starting StarPU, native or simulated, its workers, waiting, failures and the task trace."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeVar, final

import numpy as np
from threadpoolctl import threadpool_limits

from dahl.starpu import binding, bus, gpu_probe
from dahl.starpu.data import DataHandle
from dahl.starpu.errors import (
    AlreadyRunningError,
    BadArgumentError,
    GpuMemoryError,
    KernelError,
    NoWorkerError,
    StarPUError,
    UnknownSchedulerError,
    check,
    failure_error,
)
from dahl.starpu.gpus import Gpus
from dahl.starpu.kernel import Kernel, cache_root
from dahl.starpu.launch import FAILURES, CudaKernel
from dahl.starpu.layout import lay_out, link_times
from dahl.starpu.noise import Noise
from dahl.starpu.overheads import NO_FIXED_COSTS, Overheads
from dahl.starpu.platform import Platform
from dahl.starpu.policy import InstalledPolicy, Policy, WattsOf, task_kinds
from dahl.starpu.simulation import simulate
from dahl.starpu.task import Codelet, Costs, Model, TaskGraph, check_costs, check_submission, pointers_of
from dahl.starpu.trace import DECISION, TRACE
from dahl.starpu.weight import EnergyWeight
from dahl.starpu.worker import Worker

Result = TypeVar("Result")

WORKER_CAPACITY = 512
POLL_S = 50e-6
"""Waking a worker that sleeps takes about as long."""
INT64 = np.dtype(np.int64)


@final
class Runtime:
    """StarPU, running: natively, or inside a simulation of ``platform``.

    Args:
        cpu_workers: CPU workers; None is every core that StarPU finds.
        gpu_workers: GPU workers; None is every GPU that there is. Natively more than 0 takes the variant ``cuda``.
        gpu_memory_mib: what StarPU's data may take of each GPU's memory; None is most of what is free at the start.
        scheduler: the name of one of StarPU's policies, or a compiled policy.
        platform: the machine to simulate; None runs natively.
        noise: how the lengths of a simulation's tasks vary; None: they are as expected.
        overheads: what the runtime takes around a simulation's tasks; None: StarPU's own fixed microseconds.
        trace: whether each task's times are kept for ``take_trace``.
        home: where StarPU keeps its models; default ``.cache/starpu`` of the project, never the home folder.
        watts: tells, once the workers are known, the watts that a policy sees.
        explain: whether a compiled policy's decisions are kept for ``take_decisions``.
        replayed_watts: pairs of second and watts that a compiled policy sees as live watts instead of a counter's.
        energy_weight: how one of StarPU's policies weighs joules; None leaves it to StarPU's defaults and environment.
        live_watts: two float64 in memory that another process may write while StarPU runs: the second on StarPU's clock
            at which the machine's watts were read, and the watts. A policy reads them itself each time it is asked.
        poll_s: for how long a worker that has run out of tasks looks for more before it sleeps; 0: it sleeps at once.
        measures_bus: let StarPU measure the links to GPUs anew where ``home`` has no measurements (dahl.starpu.bus).
        polling: run on the StarPU whose idle workers poll, for comparisons (``scripts/get-starpu --variant polling``).

    ``Runtime(...).run(main)`` calls ``main(runtime)`` with StarPU up, natively and simulated alike.
    ``with Runtime(...) as runtime`` does so natively, for interactive use.
    While StarPU runs, the BLAS libraries that are loaded use one thread.
    """

    def __init__(
        self,
        *,
        cpu_workers: int | None = None,
        gpu_workers: int | None = 0,
        gpu_memory_mib: int | None = None,
        scheduler: str | Policy = "lws",
        platform: Platform | None = None,
        noise: Noise | None = None,
        overheads: Overheads | None = None,
        trace: bool = True,
        home: Path | None = None,
        watts: WattsOf | None = None,
        explain: bool = False,
        replayed_watts: Sequence[tuple[float, float]] = (),
        energy_weight: EnergyWeight | None = None,
        live_watts: np.ndarray | None = None,
        poll_s: float = POLL_S,
        polling: bool = False,
        measures_bus: bool = False,
    ) -> None:
        self._explain, self._replayed_watts, self._live_watts = explain, replayed_watts, live_watts
        self.platform, self.simulated, self._noise = platform, platform is not None, noise or Noise(0.0)
        self._overheads = overheads
        self.variant = self._variant(gpu_workers, polling)
        self._gpu_memory_mib, self._measures_bus = gpu_memory_mib, measures_bus
        self._found_gpus: gpu_probe.GpuProbe | None = None
        self._gpu_variables: dict[str, str] = {}
        self._gpu_limit_bytes: int | None = None
        self.gpus: Gpus | None = None
        """Of a running StarPU with GPU workers."""
        module = binding.load(self.variant)
        self.ffi, self.lib = module.ffi, module.lib
        self.workers: tuple[Worker, ...] = ()
        self.codelets: list[Codelet] = []
        self._handles: dict[int, DataHandle] = {}
        self.forgotten = 0
        """How many handles were unregistered so far."""
        self._graphs = 0
        self._cpu_workers, self._gpu_workers = cpu_workers, gpu_workers
        self._scheduler, self._trace, self._watts = scheduler, trace, watts
        self._energy_weight, self._poll_s = energy_weight, poll_s
        self._needs = frozenset(() if isinstance(scheduler, str) else scheduler.needs)
        if energy_weight is not None:
            # StarPU takes an energy that is not known for none at all: that worker would be free.
            self._needs |= {"length_s", "energy_j"}
        self._home = (home or cache_root() / "starpu").resolve()
        self._installed: InstalledPolicy | None = None
        self._raised: list[BaseException] = []
        self._check_arguments()

    # ---- running ----

    def run(self, main: Callable[..., Result], *args: Any) -> Result:
        """Start StarPU, call ``main(self, *args)``, shut StarPU down and return what main returned.

        A simulation runs once per process: SimGrid's engine cannot be started again.
        """
        if not self.simulated:
            with self:
                return main(self, *args)
        outcome: list[Result] = []
        error: list[BaseException] = []

        def inside() -> None:
            try:
                self._start()
                try:
                    outcome.append(main(self, *args))
                finally:
                    self._stop()
            except BaseException as raised:
                error.append(raised)

        os.environ.update(self._environment())  # SimGrid reads the platform before StarPU starts
        simulate(self.ffi, self.lib, inside)
        if error:
            raise error[0]
        return outcome[0]

    def __enter__(self) -> Runtime:
        if self.simulated:
            raise StarPUError("a simulation runs inside SimGrid: use Runtime(platform=...).run(main)")
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.lib.dahl_cancel()
        self._stop()

    @property
    def scheduler_name(self) -> str:
        """The scheduling policy's name."""
        return self._scheduler if isinstance(self._scheduler, str) else self._scheduler.name

    @property
    def policy_needs(self) -> frozenset[str]:
        """What a compiled policy needs to be known, such as ``length_s`` and ``energy_j`` of each task."""
        return self._needs

    # ---- data, codelets, tasks ----

    def register(self, array: np.ndarray) -> DataHandle:
        """Register a C-contiguous array and return its handle. The array must not be used but through the handle."""
        handle = DataHandle(self, array)
        self._handles[handle.pointer] = handle
        return handle

    def codelet(
        self,
        name: str,
        kernel: Kernel | None = None,
        *,
        arches: Sequence[str] = ("cpu",),
        model: Model = "none",
        symbol: str | None = None,
    ) -> Codelet:
        """Return a new codelet; see Codelet."""
        return Codelet(self, name, kernel, arches=arches, model=model, symbol=symbol)

    def graph(self) -> TaskGraph:
        """Return an empty task graph."""
        return TaskGraph(self)

    def program(
        self, kernel: Kernel, cuda: CudaKernel, shapes: Mapping[str, Any], scalars: Mapping[str, Any]
    ) -> np.ndarray | None:
        """Return what a task of these shapes and scalars runs on this runtime's GPUs; None without GPU workers."""
        return self.gpus.program(kernel, cuda, shapes, scalars) if self.gpus else None

    def submit(
        self,
        codelet: Codelet,
        handles: Sequence[DataHandle] = (),
        args: np.ndarray | None = None,
        *,
        costs: Costs | None = None,
        priority: int = 0,
        tag: int = 0,
        program: np.ndarray | None = None,
    ) -> None:
        """Submit one task. Its arguments are copied; it is ordered by how it and earlier tasks access their data."""
        check_costs(self, codelet, costs)
        self.check_fits(codelet, handles)
        block, size = self.ffi.NULL, 0
        if args is not None:
            if args.dtype != INT64:
                raise TypeError(f"args must be the int64 block that Kernel.pack makes, got {args.dtype}")
            block, size = self.ffi.from_buffer("int64_t[]", args), args.size
        address = 0
        if costs:
            self.keep(costs)
            address = costs.address
        pointers = pointers_of(handles)
        status = self.lib.dahl_submit_one(
            codelet.pointer,
            pointers,
            len(pointers),
            block,
            size,
            address,
            tag,
            priority,
            0 if program is None else program.ctypes.data,
        )
        check_submission(self, status)

    def keep(self, thing: Any) -> None:
        """Keep something alive until StarPU shuts down."""
        self._kept[id(thing)] = thing

    def wait_all(self) -> None:
        """Wait for every submitted task. Raises KernelError or a policy's error where one failed."""
        check_submission(self, self.lib.dahl_wait_all())

    def wait_submitted(self, at_most: int) -> None:
        """Wait until at most so many tasks are submitted and not done (starpu_task_wait_for_n_submitted)."""
        check_submission(self, self.lib.dahl_wait_submitted(at_most))

    @property
    def every_core_works(self) -> bool:
        """Whether each core that this process may use has a worker, so that other threads take one from it."""
        return not self.simulated and len(self.workers) >= len(os.sched_getaffinity(0))

    def feed(
        self,
        graphs: Sequence[TaskGraph],
        which: np.ndarray,
        steps: np.ndarray,
        *,
        at_most: int,
        on_progress: Callable[[int], None],
        every_s: float = 0.1,
    ) -> None:
        """Submit graph ``which[i]`` with ``steps[i]`` for each i in order, at most so many tasks ahead of their end.

        Workers do that where they have nothing else to do; this thread sleeps. ``on_progress`` gets the number of
        graphs submitted so far, now and then and once all are. Natively only. Raises what submitting or a task raises.
        """
        ffi, lib = self.ffi, self.lib
        table = ffi.new("dahl_graph[]", [graph.frozen() for graph in graphs])
        which, steps = np.ascontiguousarray(which, np.int32), np.ascontiguousarray(steps, np.int64)
        submitted = ffi.new("int64_t *")
        try:
            first = ffi.cast("int32_t *", which.ctypes.data), ffi.cast("int64_t *", steps.ctypes.data)
            check_submission(self, lib.dahl_feed_start(table, *first, which.size, at_most))
            while submitted[0] < which.size:
                check_submission(self, lib.dahl_feed_wait(every_s, submitted))
                on_progress(int(submitted[0]))
        finally:
            lib.dahl_feed_stop()

    def expected_length_s(self, codelet: Codelet, handles: Sequence[DataHandle], worker: int) -> float:
        """Return what the codelet's history model expects of a task on these data, in seconds; NaN where unknown."""
        pointers = self.ffi.new("void *[]", [self.ffi.cast("void *", handle.pointer) for handle in handles])
        return float(self.lib.dahl_expected_length_s(codelet.pointer, pointers, len(handles), worker))

    # ---- time, energy, trace ----

    def now_s(self) -> float:
        """Return StarPU's clock in seconds: real, or the simulation's."""
        return float(self.lib.dahl_now_s())

    def energy_used_j(self) -> float:
        """Return StarPU's own account of a simulation's joules (starpu_energy_used); NaN natively."""
        return float(self.lib.dahl_energy_used_j())

    def take_trace(self) -> np.ndarray:
        """Return the records of the tasks that ended since the last call, ordered by their end, and forget them.

        Raises TasksPendingError while tasks are left.
        """
        records = np.empty(self.lib.dahl_trace_count(), TRACE)
        pointer = self.ffi.cast("dahl_trace_record *", records.ctypes.data)
        check(self.lib.dahl_trace_take(pointer, records.size), "taking the trace")
        return records[np.argsort(records["end_s"], kind="stable")]

    def take_transfers(self) -> np.ndarray:
        """Return the bytes moved since the last call from one memory node (row) to another (column), int64.

        Counted where the runtime traces. Node 0 is the main memory.
        """
        nodes = 1 + max((worker.memory_node for worker in self.workers), default=0)
        moved = np.zeros((nodes, nodes), np.int64)
        pointer = self.ffi.cast("int64_t *", moved.ctypes.data)
        check(self.lib.dahl_transfers_take(pointer, nodes), "counting the transfers")
        return moved

    def take_decisions(self) -> np.ndarray:
        """Return a policy's decisions since the last call, a record per candidate, and forget them.

        Raises TasksPendingError while tasks are left.
        """
        records = np.empty(self.lib.dahl_decision_count(), DECISION)
        pointer = self.ffi.cast("dahl_decision *", records.ctypes.data)
        check(self.lib.dahl_decision_take(pointer, records.size), "taking the decisions")
        return records

    def plan(self, graphs: Sequence[tuple[TaskGraph, int]]) -> None:
        """Let a compiled policy plan for these graphs, each to be submitted so many times."""
        if self._installed is None:
            return
        self._installed.plan(task_kinds(graphs, self.workers), self.workers)
        if self._installed.policy.lays_out():
            layouts = [lay_out(graph, times, self.workers) for graph, times in graphs]
            self._installed.lay_out(layouts, link_times(self), self.workers)

    def pause(self) -> None:
        """Put every worker to sleep (starpu_pause)."""
        check(self.lib.dahl_pause(), "pausing")

    def resume(self) -> None:
        """Wake the workers again (starpu_resume)."""
        check(self.lib.dahl_resume(), "resuming")

    def cancel(self) -> None:
        """Skip the kernels of every task from now on; StarPU cannot take tasks back."""
        self.lib.dahl_cancel()

    # ---- used by the classes of this package ----

    def adopt(self, codelet: Codelet) -> int:
        """Keep a codelet until shutdown and return its number."""
        self.codelets.append(codelet)
        return len(self.codelets) - 1

    def forget(self, handle: DataHandle) -> None:
        """Drop an unregistered handle."""
        self._handles.pop(handle.pointer, None)
        self.forgotten += 1

    def number_graph(self) -> int:
        """Return the number of a new graph."""
        self._graphs += 1
        return self._graphs - 1

    def raise_failure(self, status: int) -> NoReturn:
        """Raise the error of a failed task, with the exception of its kernel or policy as the cause."""
        failure = self.ffi.new("dahl_failure *")
        self.lib.dahl_failure_get(failure)
        cause = self._raised[0] if self._raised else None
        if cause is None and not isinstance(self._scheduler, str):
            cause = self._scheduler.raised()
        on_gpu = any(worker.id == failure.worker and worker.arch == "cuda" for worker in self.workers)
        if cause is None and status == KernelError.status and on_gpu:
            cause = ValueError(FAILURES.get(failure.answer, f"failure {failure.answer}"))
        known = 0 <= failure.codelet < len(self.codelets)
        task = f"task {failure.task} ({self.codelets[failure.codelet].name if known else '?'})"
        raise failure_error(
            status, task, self.scheduler_name, failure.worker, failure.answer, cause
        ) from cause

    # ---- inside ----

    def _variant(self, gpu_workers: int | None, polling: bool) -> str:
        if self.simulated:
            return "simgrid"
        if polling:
            return "polling"
        on_gpus = gpu_workers != 0 if gpu_workers is not None else binding.is_built("cuda")
        return "cuda" if on_gpus else "native"

    def check_fits(self, codelet: Codelet, handles: Sequence[DataHandle]) -> None:
        """Raise GpuMemoryError for a task whose data no GPU can hold at once: StarPU would wait for ever."""
        if self._gpu_limit_bytes is None or codelet.arches == ("cpu",):
            return
        needed = sum(handle.array.nbytes for handle in handles)
        if needed > self._gpu_limit_bytes:
            own, limit = (number / gpu_probe.MIB for number in (needed, self._gpu_limit_bytes))
            raise GpuMemoryError(
                f"{codelet.name} takes {own:.0f} MiB of data, but {limit:.0f} MiB of a GPU are for data "
                "(gpu_memory_mib): smaller tiles, or more memory"
            )

    def _check_arguments(self) -> None:
        least = gpu_probe.LEAST_MIB
        if self._gpu_memory_mib is not None and self._gpu_memory_mib < least:
            raise BadArgumentError(f"gpu_memory_mib must be at least {least}, got {self._gpu_memory_mib}")
        if not 0 <= self._poll_s < math.inf:
            raise BadArgumentError(f"poll_s must be 0 or more and finite, got {self._poll_s}")
        if self._cpu_workers is not None and self._cpu_workers < 0:
            raise BadArgumentError(f"cpu_workers must be 0 or more, got {self._cpu_workers}")
        available = len(self.platform.cpu_classes) if self.platform else len(os.sched_getaffinity(0))
        if self._cpu_workers is not None and self._cpu_workers > available:
            where = f"platform {self.platform.name}" if self.platform else "this machine"
            raise BadArgumentError(f"cpu_workers={self._cpu_workers}, but {where} has {available} CPU cores")
        if isinstance(self._scheduler, str):
            known = binding.schedulers(self.variant)
            if self._scheduler not in known:
                raise UnknownSchedulerError(
                    f"no scheduler {self._scheduler!r}; StarPU has {', '.join(sorted(known))}"
                )

    def _environment(self) -> dict[str, str]:
        models = self._home / "models"
        models.mkdir(parents=True, exist_ok=True)
        name = "cuda" if self.variant == "cuda" else "host"  # each knows other links between memories
        if self.platform:
            self.platform.write(models)
            name = self.platform.name
        return {
            "STARPU_HOME": str(self._home),
            "STARPU_PERF_MODEL_DIR": str(models),
            "STARPU_HOSTNAME": name,
            "STARPU_PERF_MODEL_HOMOGENEOUS_CPU": "0",
            # A simulation's lengths hold what it takes to launch them.
            "STARPU_SIMGRID_CUDA_QUEUE_COST": "0",
            "STARPU_SIMGRID_CUDA_MALLOC_COST": str(int(not (self.platform and self.platform.allocated))),
            **(NO_FIXED_COSTS if self._overheads else {}),
            **(self._energy_weight.environment() if self._energy_weight else {}),
            **self._gpu_variables,
        }

    def _config(self) -> Any:
        config = self.ffi.new("dahl_config *")
        gpus = len(self.platform.gpus) if self.platform else self._count_gpus()
        cpus = self._cpu_workers
        if cpus is None:
            # Each GPU takes a core for its driver.
            cores = len(self.platform.cpu_classes) if self.platform else len(os.sched_getaffinity(0))
            cpus = max(cores - gpus, 0 if gpus else 1)
        config.cpu_workers, config.gpu_workers, config.trace = cpus, gpus, int(self._trace)
        config.poll_us = self._poll_s * 1e6
        if isinstance(self._scheduler, str):
            self._name = self.ffi.new("char[]", self._scheduler.encode())
            config.scheduler = self._name
        else:
            self._installed = InstalledPolicy(
                self.ffi,
                self._scheduler,
                WORKER_CAPACITY,
                explain=self._explain,
                replayed_watts=self._replayed_watts,
                live_watts=self._live_watts,
            )
            config.policy = self._installed.struct
            config.npower = WORKER_CAPACITY
        return config

    def _count_gpus(self) -> int:
        """Find the GPUs, and refuse those that cannot be used. Raises NoGpuError and GpuMemoryError."""
        if self.variant != "cuda":
            return 0
        self._found_gpus = gpu_probe.probe(self.ffi, self.lib)
        count = gpu_probe.usable(self._found_gpus, self._gpu_workers)
        if count and not self._measures_bus:
            bus.provide(self._home / "models", self._found_gpus)
            self._gpu_variables = gpu_probe.memory_limits(self.ffi, self.lib, count, self._gpu_memory_mib)
            os.environ.update(self._gpu_variables)
            self._gpu_limit_bytes = min(map(int, self._gpu_variables.values())) * gpu_probe.MIB
        return count

    def _start(self) -> None:
        os.environ.update(self._environment())
        self._kept: dict[int, Any] = {}
        self._raised.clear()
        self._previous_hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        # Workers are the parallelism; threads of BLAS's own would fight them for the cores, and change the bits.
        self._blas = threadpool_limits(limits=1, user_api="blas")
        try:
            status = self.lib.dahl_init(self._config())
            if status == AlreadyRunningError.status:
                raise AlreadyRunningError(
                    "StarPU is running in this process already; leave that Runtime first"
                )
            if status == NoWorkerError.status:
                raise NoWorkerError("StarPU found no worker: ask for at least one CPU or GPU worker")
            check(status, "starting StarPU")
            check(self.lib.dahl_set_noise(self._noise.sigma, self._noise.seed), "setting the noise")
            own = self._overheads or Overheads()
            check(self.lib.dahl_set_overheads(*astuple(own)), "setting the overheads")
        except BaseException:
            self._restore()
            raise
        try:
            self.workers = tuple(self._worker(i) for i in range(self.lib.dahl_worker_count()))
            if self._found_gpus and any(worker.arch == "cuda" for worker in self.workers):
                capability = {device.number: device.capability for device in self._found_gpus.devices}
                self.gpus = Gpus(self.ffi, self.lib, self.workers, capability)
            if self._installed:
                watts = self._watts(self.workers) if self._watts else None
                self._installed.describe(self.lib, self.workers, watts)
        except BaseException:  # the policy cannot work with these workers or watts
            self._stop()
            raise

    def _stop(self) -> None:
        try:
            self.lib.dahl_wait_all()
            for handle in list(self._handles.values()):
                handle.unregister()
            check(self.lib.dahl_shutdown(), "shutting StarPU down")
        finally:
            self._restore()
            self.workers, self.gpus = (), None

    def _restore(self) -> None:
        sys.unraisablehook = self._previous_hook
        own = self._energy_weight.environment() if self._energy_weight else {}
        for name in (*own, *self._gpu_variables):
            os.environ.pop(name, None)  # the next runtime of this process may have none
        self._gpu_variables, self._gpu_limit_bytes = {}, None
        self._blas.restore_original_limits()

    def _worker(self, number: int) -> Worker:
        info = self.ffi.new("dahl_worker *")
        check(self.lib.dahl_worker_info(number, info), f"asking about worker {number}")
        arch: Literal["cpu", "cuda"] = "cpu" if info.arch == 0 else "cuda"
        worker_class: str = arch
        if self.platform:
            worker_class = (
                self.platform.cpu_classes[info.device]
                if arch == "cpu"
                else self.platform.gpus[info.device].worker_class
            )
        name = self.ffi.string(info.name).decode()
        return Worker(number, name, arch, info.device, info.memory_node, worker_class)

    def _unraisable(self, unraisable: Any) -> None:
        """Keep what a compiled kernel or policy raised; Numba can only report it this way."""
        if "numba" in str(unraisable.object) and unraisable.exc_value is not None:
            self._raised.append(unraisable.exc_value)
        else:
            self._previous_hook(unraisable)
