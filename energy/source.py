"""What an energy source is: it reads cumulative integers and says what they cover.

Differences, wraps, gaps and joules are computed downstream, once (`energy.counters`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, get_args

Quality = Literal["measured", "estimated", "simulated", "modelled"]
"""What stands behind a number of joules, strongest first.

`measured`: a counter, or a power sensor that was summed up. `estimated`: what real workers did, times assumed watts.
`simulated`: what simulated workers did, times assumed watts.
`modelled`: derived from other numbers, by a fit, or by replaying another run's.
"""

QUALITIES: tuple[Quality, ...] = get_args(Quality)


def weakest(qualities: Iterable[Quality]) -> Quality | None:
    """The weakest of `qualities`: what their sum may call itself. None for none."""
    return max(qualities, key=QUALITIES.index, default=None)


class SourceUnavailableError(RuntimeError):
    """This machine does not have an energy source, or does not let this user read it."""

    def __init__(self, source: str, why: str, remedy: str) -> None:
        super().__init__(f"energy source {source!r} is not available: {why}. To mend it: {remedy}")
        self.source = source
        self.why = why
        self.remedy = remedy

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.source, self.why, self.remedy)


@dataclass(frozen=True, slots=True)
class Channel:
    """One cumulative counter and what it covers."""

    name: str
    """Unique over all sources: `rapl:package-0`, `rapl:package-0/dram`, `nvml:gpu-0`."""
    component: str
    """The hardware that it covers: `package`, `dram`, `gpu`, `board`, `core`, `uncore`, `psys`, `rail`."""
    in_total: bool
    """Whether the total includes it; False where another channel already covers its joules."""
    unit_j: float
    """Joules of one count."""
    wrap: int | None
    """The counter's modulus in counts (largest value + 1); None where it never wraps."""
    period_s: float
    """Longest time between two updates of the counter in hardware."""
    device: str = ""
    """Which piece of hardware: a zone's folder, a GPU's UUID, PCI address and name."""
    integrated: bool = False
    """Whether the source sums up samples of power itself, since the hardware counts no energy.

    What the power does between two samples is then not seen.
    """
    longest_gap_s: float | None = None
    """Readings further apart than this do not tell the joules between them; None: only a wrap limits it."""
    scope: str = ""
    """`parent_gpu` where it covers more than the device in use: the whole GPU behind its MIG instances."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that was read."""

    channel: str
    t_ns: int
    """`time.monotonic_ns()` in the middle of the read."""
    raw: int
    """The counter as it stands, in counts since an arbitrary zero."""


class ReadError(RuntimeError):
    """Some channels of an open source could not be read; those that could are in `readings`."""

    def __init__(self, source: str, failed: Mapping[str, str], readings: Sequence[Reading] = ()) -> None:
        told = "; ".join(f"{channel}: {why}" for channel, why in failed.items())
        super().__init__(f"energy source {source!r} could not read {told}")
        self.source = source
        self.failed = dict(failed)
        self.readings = list(readings)

    def __reduce__(self) -> tuple[type, tuple[str, dict[str, str], list[Reading]]]:
        return type(self), (self.source, self.failed, self.readings)


class Source(ABC):
    """A reader of cumulative counters. Made cheaply, opened where it is read.

    One that is not open can be pickled, since it is sent to the sampler's process, unless it is `in_process`.
    """

    name: str
    quality: Quality
    left_out: tuple[tuple[str, str], ...] = ()
    """Channels outside the total that an open source found but cannot read, with the reason."""
    in_process: bool = False
    """Whether only this process can read it (its counter is an object here): the sampler is a thread then."""

    @property
    @abstractmethod
    def channels(self) -> tuple[Channel, ...]:
        """What `read` reads; empty until the source is open."""

    @abstractmethod
    def open(self) -> None:
        """Find the counters and keep them open. Raises `SourceUnavailableError`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what `open` took; harmless when it is not open."""

    @abstractmethod
    def read(self) -> list[Reading]:
        """One reading per channel, in the channels' order.

        Raises `ReadError`, with the readings that were possible, when any channel could not be read.
        """

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class RawFiles:
    """Open files, one for each channel in the channels' order, of which a read gives the counts."""

    descriptors: tuple[int, ...]
    form: Literal["digits", "uint64"]
    """`digits`: decimal digits from the file's start, blanks around them. `uint64`: the next 8 bytes, in the
    machine's order."""


class RawSource(Source):
    """A source that can be read often, since it leaves the bytes that it reads for later."""

    @property
    @abstractmethod
    def files(self) -> RawFiles | None:
        """The open files, where reading them is all that `read_raw` does: then C can do it. Else None."""

    @abstractmethod
    def read_raw(self, into: list[Any]) -> None:
        """Append, for each channel in the channels' order, its time as in `Reading.t_ns` and the bytes read.

        In place of the bytes of a channel that could not be read stands the reason, as a text.
        """

    @abstractmethod
    def counts(self, data: bytes) -> int:
        """The counts that `data` says; `ValueError` where it says none."""
