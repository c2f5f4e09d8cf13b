"""Intel and AMD RAPL counters through Linux's perf events."""

from __future__ import annotations

import ctypes
import math
import os
import re
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

from energy.source import Channel, Quality, RawFiles, RawSource, ReadError, Reading, SourceUnavailableError

DEVICES = Path("/sys/devices")

_PERIOD_S = 0.001
_COMPONENTS = {
    "energy-pkg": ("package", ""),
    "energy-ram": ("dram", "/dram"),
    "energy-cores": ("core", "/core"),
    "energy-gpu": ("uncore", "/uncore"),
    "energy-psys": ("psys", "/psys"),
}
_IN_TOTAL = {"package", "dram"}
_REMEDY_ABSENT = "run on bare metal after `sudo modprobe rapl`, or choose energy=model"
_REMEDY_CLOSED = (
    "sudo sysctl kernel.perf_event_paranoid=0 (until the next boot), or give the interpreter cap_perfmon; "
    "`scripts/allow-rapl --help` says what each opens"
)
# linux/perf_event.h: the size of the first published perf_event_attr, and close-on-exec.
_ATTR_SIZE = 64
_FLAG_FD_CLOEXEC = 8
_SYSCALLS = {"x86_64": 298, "i686": 336, "aarch64": 241, "riscv64": 241, "ppc64le": 319}


class PerfEvent(Protocol):
    """An open event."""

    def read(self) -> bytes:
        """The counts since it was opened, 8 bytes in the machine's order. Raises `OSError`."""

    def close(self) -> None:
        """Let go of it."""


@final
class KernelPerfEvent:
    """An event of the running kernel: every process on one CPU. Raises `OSError` as `perf_event_open` does."""

    def __init__(self, kind: int, config: int, cpu: int) -> None:
        attributes = ctypes.create_string_buffer(_ATTR_SIZE)
        struct.pack_into("=IIQ", attributes, 0, kind, _ATTR_SIZE, config)
        number = _SYSCALLS.get(os.uname().machine)
        if number is None:
            raise OSError(0, f"perf events are not known on {os.uname().machine}")
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = libc.syscall(
            ctypes.c_long(number), attributes, -1, cpu, -1, ctypes.c_ulong(_FLAG_FD_CLOEXEC)
        )
        if self.descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def read(self) -> bytes:
        return os.read(self.descriptor, 8)

    def close(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class _Event:
    channel: Channel
    config: int
    cpu: int


@final
class PerfSource(RawSource):
    """Reads the events of the `power` PMU below `root`, one per CPU in its `cpumask`: one for each die.

    The kernel follows the hardware's counter, so the 64 bit counts start at 0 and do not wrap. Channels are
    named as powercap's are (`perf:package-0`, `perf:package-0-die-1`, `perf:package-0/dram`); packages and
    their dram are in the total.

    `opener(type, config, cpu)` opens an event; it raises `OSError`.
    """

    name = "perf"
    quality: Quality = "measured"

    def __init__(
        self, root: Path = DEVICES, *, opener: Callable[[int, int, int], PerfEvent] = KernelPerfEvent
    ) -> None:
        self._root = Path(root)
        self._opener = opener
        self.in_process = opener is not KernelPerfEvent
        self._open: list[tuple[Channel, PerfEvent]] = []

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(channel for channel, _ in self._open)

    def open(self) -> None:
        self.close()
        pmu = self._root / "power"
        kind = _number(pmu / "type")
        events = _find_events(pmu, self._root / "system" / "cpu")
        try:
            self._open_events(kind, events)
        except BaseException:
            self.close()
            raise

    def _open_events(self, kind: int, events: list[_Event]) -> None:
        left_out = []
        for event in events:
            channel = event.channel
            try:
                self._open.append((channel, self._opener(kind, event.config, event.cpu)))
            except PermissionError as error:
                raise SourceUnavailableError(
                    "perf",
                    f"the kernel opens {channel.device} to no ordinary user ({_told(error)})",
                    _REMEDY_CLOSED,
                ) from error
            except OSError as error:
                why = f"{channel.device} cannot be opened ({_told(error)})"
                if channel.in_total:
                    raise SourceUnavailableError("perf", why, _REMEDY_ABSENT) from error
                left_out.append((channel.name, why))
        self.left_out = tuple(left_out)

    def close(self) -> None:
        while self._open:
            self._open.pop()[1].close()

    def read(self) -> list[Reading]:
        if not self._open:
            raise ReadError("perf", {"all channels": "the source is not open"})
        readings = []
        failed = {}
        for channel, event in self._open:
            before_ns = time.monotonic_ns()
            try:
                counts = self.counts(event.read())
            except (OSError, ValueError) as error:
                failed[channel.name] = _told(error)
                continue
            readings.append(Reading(channel.name, (before_ns + time.monotonic_ns()) // 2, counts))
        if failed:
            raise ReadError("perf", failed, readings)
        return readings

    def read_raw(self, into: list[Any]) -> None:
        clock = time.monotonic_ns
        before_ns = clock()
        for _, event in self._open:
            try:
                data: bytes | str = event.read()
            except OSError as error:
                data = _told(error)
            after_ns = clock()
            into += [(before_ns + after_ns) // 2, data]
            before_ns = after_ns

    @property
    def files(self) -> RawFiles | None:
        events = [event for _, event in self._open if isinstance(event, KernelPerfEvent)]
        if len(events) < len(self._open):
            return None
        return RawFiles(tuple(event.descriptor for event in events), "uint64")

    def counts(self, data: bytes) -> int:
        if len(data) != 8:
            # The kernel says so, without an error, of an event whose CPU has gone.
            raise ValueError(f"the event gave {len(data)} bytes, not 8: its CPU is offline")
        return int.from_bytes(data, sys.byteorder)


def _find_events(pmu: Path, cpus: Path) -> list[_Event]:
    dies = _dies(_cpu_list(pmu / "cpumask"), cpus)
    known = [name for name in _COMPONENTS if (pmu / "events" / name).exists()]
    if "energy-pkg" not in known:
        raise SourceUnavailableError("perf", f"{pmu}/events has no energy-pkg", _REMEDY_ABSENT)
    return [_event(pmu, name, cpu, die) for cpu, die in dies for name in known]


def _event(pmu: Path, name: str, cpu: int, die: str) -> _Event:
    path = pmu / "events" / name
    match = re.fullmatch(r"event=(0x[0-9a-fA-F]+|\d+)", _text(path))
    if match is None:
        raise SourceUnavailableError("perf", f"{path} holds {_text(path)!r}, no event", _REMEDY_ABSENT)
    unit = _text(path.with_name(f"{name}.unit"))
    if unit != "Joules":
        raise SourceUnavailableError("perf", f"{path}.unit holds {unit!r}, not Joules", _REMEDY_ABSENT)
    component, suffix = _COMPONENTS[name]
    channel = Channel(
        name=f"perf:{die}{suffix}",
        component=component,
        in_total=component in _IN_TOTAL,
        unit_j=_scale(path.with_name(f"{name}.scale")),
        wrap=None,
        period_s=_PERIOD_S,
        device=f"perf event power/{name}/ on CPU {cpu}",
    )
    return _Event(channel, int(match[1], 0), cpu)


def _dies(cpus: list[int], folder: Path) -> list[tuple[int, str]]:
    """Each CPU of the mask with the package or die that it stands for, named as powercap names it."""
    packages = [_number(folder / f"cpu{cpu}" / "topology" / "physical_package_id") for cpu in cpus]
    named = []
    for cpu, package in zip(cpus, packages, strict=True):
        name = f"package-{package}"
        if packages.count(package) > 1:
            name += f"-die-{_number(folder / f'cpu{cpu}' / 'topology' / 'die_id')}"
        named.append((cpu, name))
    names = [name for _, name in named]
    for name in names:
        if names.count(name) > 1:
            raise SourceUnavailableError(
                "perf", f"{names.count(name)} CPUs of the cpumask stand for {name}", "choose energy=rapl"
            )
    return named


def _cpu_list(path: Path) -> list[int]:
    text = _text(path)
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise SourceUnavailableError("perf", f"{path} holds {text!r}, no list of CPUs", _REMEDY_ABSENT)
    cpus: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def _scale(path: Path) -> float:
    text = _text(path)
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not (math.isfinite(scale) and scale > 0):
        raise SourceUnavailableError("perf", f"{path} holds {text!r}, no scale", _REMEDY_ABSENT)
    return scale


def _number(path: Path) -> int:
    text = _text(path)
    if not (text.isascii() and text.isdigit()):
        raise SourceUnavailableError("perf", f"{path} holds {text!r}, no number", _REMEDY_ABSENT)
    return int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceUnavailableError(
            "perf", f"{path} cannot be read ({_told(error)})", _REMEDY_ABSENT
        ) from error


def _told(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
