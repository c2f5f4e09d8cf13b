"""How busy a process kept its cores, from its CPU time: the activity that a power model counts where no tasks are."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, final

import numpy as np

from energy import PowerModel, WorkerPower

CODELET = "cpu_time"


@final
class CpuTime:
    """Takes marks of the clock and of the CPU time of all threads, and turns them into busy stretches of cores.

    Between two marks so many cores are busy as CPU seconds were used per second: core 0 first. `cores` is the most
    that can be; `clock_s` tells the time of the windows, `cpu_s` the CPU seconds of the process so far.
    """

    def __init__(
        self,
        clock_s: Callable[[], float],
        cores: int,
        *,
        period_s: float = 0.02,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        if cores < 1:
            raise ValueError(f"cores must be at least 1, got {cores}")
        self._clock_s, self._cpu_s = clock_s, cpu_s
        self._cores, self._period_s = cores, period_s
        self._marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        """Take a mark now."""
        self._marks.append((self._clock_s(), self._cpu_s()))

    def note(self) -> None:
        """Take a mark if the last one is at least a period old."""
        if not self._marks or self._clock_s() >= self._marks[-1][0] + self._period_s:
            self.mark()

    def take(self) -> Mapping[str, Any]:
        """Busy stretches since the last call, as columns of tasks; the last mark stays, to go on from."""
        starts_s: list[float] = []
        ends_s: list[float] = []
        cores: list[int] = []
        for (from_s, used_s), (to_s, used_until_s) in zip(self._marks, self._marks[1:], strict=False):
            length_s = to_s - from_s
            if length_s <= 0:
                continue
            # The two clocks are not read at one instant: no more than every core the whole time.
            busy = min((used_until_s - used_s) / length_s, float(self._cores))
            for core in range(math.ceil(busy)):
                cores.append(core)
                starts_s.append(from_s)
                ends_s.append(from_s + length_s * min(1.0, busy - core))
        del self._marks[:-1]
        return {
            "worker": np.array(cores, np.intp),
            "start_s": np.array(starts_s, np.float64),
            "end_s": np.array(ends_s, np.float64),
            "codelet": np.full(len(cores), CODELET),
        }


def cpu_time_model(model: PowerModel, cores: int) -> PowerModel:
    """The power model of these CPU workers for the CPU time of a process on `cores` cores.

    Cores beyond the workers draw no idle watts of their own, as when tasks are counted, but a busy one's on top.
    A thread that polls uses CPU time, so polling is not counted once more.
    Raises ValueError where a worker is none of a CPU.
    """
    if any(worker.channel != "cpu" for worker in model.workers):
        raise ValueError(
            "energy.activity=cpu_time: CPU time tells nothing of GPUs; use energy.activity=tasks"
        )
    first = model.workers[0]
    spare = WorkerPower(idle_w=0.0, polling_w=0.0, busy_w=first.busy_w - first.idle_w)
    spares = (spare,) * max(0, cores - len(model.workers))
    plain = tuple(replace(worker, busy_w_by_codelet={}) for worker in model.workers)
    return replace(model, workers=plain + spares, stays_awake_s=0.0)
