"""Sources whose counters a test sets by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import final

from energy import Channel, Quality, ReadError, Reading, Source, SourceUnavailableError

PACKAGE = Channel("rapl:package-0", "package", True, 1e-6, 262_143_328_851, 0.001)
DRAM = Channel("rapl:package-0/dram", "dram", True, 1e-6, 65_712_999_614, 0.001)
CORE = Channel("rapl:package-0/core", "core", False, 1e-6, 262_143_328_851, 0.001)
GPU = Channel("nvml:gpu-0", "gpu", True, 1e-3, None, 0.1)


Counter = int | None | Callable[[int], int]


@final
class HandSource(Source):
    """Shows `raw`, by channel: a value, a function of the time in ns, or None for what cannot be read."""

    quality: Quality = "measured"
    in_process = True

    def __init__(self, name: str, raw: Mapping[Channel, Counter], *, available: bool = True) -> None:
        self.name = name
        self.raw: dict[Channel, Counter] = dict(raw)
        self.opened = 0
        self.reads = 0
        self.error: Exception | None = None
        self._available = available

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(self.raw)

    def open(self) -> None:
        if not self._available:
            raise SourceUnavailableError(self.name, "it is unplugged", "plug it in")
        self.opened += 1

    def close(self) -> None:
        self.opened = 0

    def read(self) -> list[Reading]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        t_ns = time.monotonic_ns()
        readings = [
            Reading(channel.name, t_ns, raw(t_ns) if callable(raw) else raw)
            for channel, raw in self.raw.items()
            if raw is not None
        ]
        failed = {channel.name: "it does not answer" for channel, raw in self.raw.items() if raw is None}
        if failed:
            raise ReadError(self.name, failed, readings)
        return readings


@final
class ClockSource(Source):
    """A package that draws `watts` by the clock, so that every process knows what its counter must show."""

    quality: Quality = "measured"

    def __init__(
        self,
        zero_ns: int,
        watts: int = 7,
        *,
        channel: Channel = PACKAGE,
        name: str = "clock",
        opens: bool = True,
    ) -> None:
        self.name = name
        self.zero_ns = zero_ns
        self._channel = channel
        self.watts = watts
        self.opens = opens

    @property
    def channels(self) -> tuple[Channel, ...]:
        return (self._channel,)

    def raw(self, t_ns: int) -> int:
        """What the counter shows, in uJ."""
        return (t_ns - self.zero_ns) * self.watts // 1000

    def open(self) -> None:
        if not self.opens:
            raise SourceUnavailableError("clock", "it has stopped", "wind it up")

    def close(self) -> None:
        """Nothing was taken."""

    def read(self) -> list[Reading]:
        t_ns = time.monotonic_ns()
        return [Reading(self._channel.name, t_ns, self.raw(t_ns))]


@final
class StuckSource(Source):
    """Answers its first reading and then never again."""

    name = "stuck"
    quality: Quality = "measured"
    channels = (PACKAGE,)

    def __init__(self) -> None:
        self._reads = 0

    def open(self) -> None:
        """Nothing to take."""

    def close(self) -> None:
        """Nothing was taken."""

    def read(self) -> list[Reading]:
        self._reads += 1
        if self._reads > 2:
            time.sleep(600)
        return [Reading(PACKAGE.name, time.monotonic_ns(), 0)]
