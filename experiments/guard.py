"""What else ran on the machine during a window: load of others, stolen time, frequency, throttling of CPUs and GPUs.

Load is the busy time of all processors (/proc/stat) without that of the trial, what it started and its supervisor,
as a number of cores. The kernel counts busy time in ticks, so that a short window tells little: the bound says how
little. A reading that the machine does not have is None.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, final

from energy.gpu_throttling import GpuSlowdowns, GpuThrottling

_Number = TypeVar("_Number", int, float)

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_BUSY = (0, 1, 2, 5, 6)
"""Columns of /proc/stat: user (guests are in it), nice, system, irq, softirq."""
_STEAL = 7
_USER_S, _SYSTEM_S, _WAITED_USER_S, _WAITED_SYSTEM_S = 11, 12, 13, 14
"""Columns of /proc/PID/stat behind the name of the command."""


class DisturbedError(RuntimeError):
    """A window was disturbed, and guard=refuse."""


@final
@dataclass(frozen=True)
class Reading:
    """The machine's counters at one moment."""

    t_s: float
    busy_s: float
    stolen_s: float
    own_s: float
    frequency_mhz: float | None
    throttles: int | None
    gpus: GpuSlowdowns


@final
@dataclass(frozen=True)
class Load:
    """A window's load by others than the trial."""

    seconds: float
    foreign_cores: float
    """Cores that other processes kept busy, on average; below 0 only by the error that the bound says."""
    foreign_cores_bound: float
    stolen_cores: float
    """Cores that the hypervisor gave to other machines while there was work for them."""
    frequency_mhz: float | None
    """Of all processors, at the window's end."""
    throttles: int | None
    """How often processors were slowed down for heat or power; a package's is counted by each of its cores."""
    gpu_throttled_s: float | None
    """Seconds for which GPUs were slowed down for heat or a limit of the board, summed over them."""
    gpu_power_limited_s: float | None
    """Seconds that GPUs were at their power limit, summed over them: part of how they work, not a disturbance."""
    disturbed: bool | None
    """None where the window is too short to tell."""

    @property
    def words(self) -> str:
        """What disturbed it."""
        said = [f"{self.foreign_cores + self.stolen_cores:.2f} cores were busy with other work"]
        if self.throttles:
            said.append("processors were throttled")
        if self.gpu_throttled_s:
            said.append(f"GPUs were throttled for {self.gpu_throttled_s:.3g} s")
        return " and ".join(said)


@final
class Guard:
    """Reads the load by others of one window after another.

    `root` holds `proc` and `sys`; `pid` is the trial's; `gpus` tells for how long GPUs were slowed down.
    """

    def __init__(
        self,
        max_foreign_cores: float,
        root: Path = Path("/"),
        pid: int | None = None,
        gpus: GpuThrottling | None = None,
    ) -> None:
        self._max = max_foreign_cores
        self._proc, self._cpus = root / "proc", root / "sys/devices/system/cpu"
        self._pid = os.getpid() if pid is None else pid
        self._supervisor = os.getppid() if pid is None else None
        self._processors = len(_processor_lines(self._proc)) - 1
        self._gpus = gpus or GpuThrottling()

    def read(self) -> Reading:
        """Read the counters; raises OSError where /proc cannot be read."""
        ticks = [int(text) for text in _processor_lines(self._proc)[0].split()[1:]]
        return Reading(
            t_s=time.monotonic(),
            busy_s=sum(ticks[column] for column in _BUSY) * _TICK_S,
            stolen_s=ticks[_STEAL] * _TICK_S,
            own_s=self._own_s(),
            frequency_mhz=self._frequency_mhz(),
            throttles=self._throttles(),
            gpus=self._gpus.read(),
        )

    def load(self, begin: Reading, end: Reading) -> Load:
        """What else ran between two readings."""
        seconds = end.t_s - begin.t_s
        foreign = (end.busy_s - begin.busy_s - (end.own_s - begin.own_s)) / seconds
        # A tick at both ends of the window, for each processor and for the account of the trial's own.
        bound = 2 * (self._processors + 1) * _TICK_S / seconds
        stolen = (end.stolen_s - begin.stolen_s) / seconds
        throttles = _rise(begin.throttles, end.throttles)
        gpu_throttled_s = _rise(begin.gpus.throttled_s, end.gpus.throttled_s)
        return Load(
            seconds=seconds,
            foreign_cores=foreign,
            foreign_cores_bound=bound,
            stolen_cores=stolen,
            frequency_mhz=end.frequency_mhz,
            throttles=throttles,
            gpu_throttled_s=gpu_throttled_s,
            gpu_power_limited_s=_rise(begin.gpus.power_limited_s, end.gpus.power_limited_s),
            disturbed=self._judge(foreign + stolen, bound, bool(throttles) or bool(gpu_throttled_s)),
        )

    def _judge(self, cores: float, bound: float, throttled: bool) -> bool | None:
        if throttled or cores - bound > self._max:
            return True
        return False if cores + bound <= self._max else None

    def _own_s(self) -> float:
        """Processor time of the trial, of all that it started, and of its supervisor."""
        own_s = self._process_s(self._pid, family=True)
        if self._supervisor is not None:
            own_s += self._process_s(self._supervisor, family=False)
        return own_s

    def _process_s(self, pid: int, *, family: bool) -> float:
        """Processor time of a process; with `family` of its children, too, those that have ended among them."""
        try:
            fields = (self._proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended since it was named
            return 0.0
        ticks = int(fields[_USER_S]) + int(fields[_SYSTEM_S])
        if not family:
            return ticks * _TICK_S
        ticks += int(fields[_WAITED_USER_S]) + int(fields[_WAITED_SYSTEM_S])
        return ticks * _TICK_S + sum(self._process_s(child, family=True) for child in self._children(pid))

    def _children(self, pid: int) -> list[int]:
        found: list[int] = []
        for path in (self._proc / str(pid) / "task").glob("*/children"):
            try:
                found += [int(text) for text in path.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):  # the thread has ended
                continue
        return found

    def _throttles(self) -> int | None:
        """Events since the machine started."""
        cores = [_number(path) for path in self._cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
        packages = [
            _number(path) for path in self._cpus.glob("cpu[0-9]*/thermal_throttle/package_throttle_count")
        ]
        known = [count for count in (*cores, *packages) if count is not None]
        return int(sum(known)) if known else None

    def _frequency_mhz(self) -> float | None:
        found = [_number(path) for path in self._cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
        khz = [value for value in found if value is not None]
        return sum(khz) / len(khz) / 1000 if khz else None


def _rise(begin: _Number | None, end: _Number | None) -> _Number | None:
    """How much a counter rose; None where it was not read."""
    return None if begin is None or end is None else end - begin


def _processor_lines(proc: Path) -> list[str]:
    """/proc/stat: a line of all processors, then one of each."""
    with open(proc / "stat") as file:
        return [line for line in file if line.startswith("cpu")]


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
