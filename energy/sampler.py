"""What a sampler is: it polls open sources, records every reading and says where the counters stand."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from energy.counters import Mark
from energy.live import LivePage
from energy.source import Channel, Quality
from energy.ticks import Loop

DEFAULT_RATE = "default"
"""The key of a mapping of rates for the sources that it does not name."""

RateHz = float | Mapping[str, float]
"""Readings per second: of every source, or by the source's name."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where every channel's record stands, just read."""

    t_ns: int
    """`time.monotonic_ns()` in the middle of the reads."""
    marks: dict[str, Mark]


@dataclass(frozen=True, slots=True)
class LivePower:
    """A channel's mean power over about the last second."""

    watts: float
    age_s: float
    """How long ago its last reading was."""


@dataclass(frozen=True, slots=True)
class SamplingReport:
    """How a sampler kept its times."""

    samples: int
    """How often it woke up to read what was due."""
    skipped: int
    """Times of a reading that it slept through."""
    late_p50_s: float
    late_p99_s: float
    """Lateness, to 10 us; 0.1 s stands for all that is later."""
    cpu_s: float
    """Processor time of the process or thread that sampled."""
    seconds: float
    loops: dict[str, Loop]
    """What read each channel."""


class SamplerError(RuntimeError):
    """A sampler cannot be started."""


class Sampler(ABC):
    """Samples open sources by itself. Windows need nothing of it but what stands here."""

    @property
    @abstractmethod
    def channels(self) -> dict[str, Channel]:
        """Every source's channels by name; empty before `open`."""

    @property
    @abstractmethod
    def qualities(self) -> dict[str, Quality]:
        """The quality of each channel's counter."""

    @property
    @abstractmethod
    def loops(self) -> dict[str, Loop]:
        """What reads each channel at its ticks."""

    @property
    @abstractmethod
    def trouble(self) -> str | None:
        """What has gone wrong so far, in one line; None for nothing."""

    @abstractmethod
    def open(self) -> None:
        """Open the sources. Raises `SourceUnavailableError`, with none of them left open."""

    @abstractmethod
    def start(self) -> None:
        """Take the first sample and go on by itself; without sources there is nothing to do."""

    @abstractmethod
    def sample(self) -> Snapshot:
        """Read every source now.

        What cannot be read has a mark that is not valid; a sampler that has died since the last call has broken
        every channel's record. `trouble` says why.
        """

    @abstractmethod
    def live(self) -> dict[str, LivePower]:
        """Power by channel; a channel without enough recent readings is left out."""

    @abstractmethod
    def stop(self) -> None:
        """End sampling and close the sources; harmless when nothing runs."""


def rate_of(source: str, rate_hz: RateHz) -> float:
    """How often a source is to be read; `ValueError` where `rate_hz` does not say."""
    if not isinstance(rate_hz, Mapping):
        return rate_hz
    if source not in rate_hz and DEFAULT_RATE not in rate_hz:
        raise ValueError(
            f"rate_hz has no rate for {source}: add {source} or {DEFAULT_RATE} to {', '.join(rate_hz)}"
        )
    return rate_hz[source] if source in rate_hz else rate_hz[DEFAULT_RATE]


def check_rates(rate_hz: RateHz, sources: Iterable[str]) -> None:
    """Raise `ValueError` for a rate that is none, or is missing for one of these sources."""
    if isinstance(rate_hz, Mapping) and not rate_hz:
        raise ValueError("rate_hz must name at least one source, or default")
    rates = rate_hz if isinstance(rate_hz, Mapping) else {"": rate_hz}
    for name, rate in rates.items():
        if not 0 < rate < math.inf:
            key = f"rate_hz.{name}" if name else "rate_hz"
            raise ValueError(f"{key} must be more than 0, got {rate}")
    for source in sources:
        rate_of(source, rate_hz)


def read_live(page: LivePage, channels: Iterable[str]) -> dict[str, LivePower]:
    """What a page says of these channels, which are in the order in which they are sampled."""
    now_ns = time.monotonic_ns()
    found = {}
    for slot, name in enumerate(channels):
        shown = page.read(slot)
        if shown is not None:
            t_ns, watts = shown
            found[name] = LivePower(watts, (now_ns - t_ns) * 1e-9)
    return found
