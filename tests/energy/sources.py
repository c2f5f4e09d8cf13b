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
