"""From cumulative counts to joules: wraps, resets, gaps, windows and their error bounds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import final

from energy.source import Channel, Reading

LARGEST_POWER_W = 1000.0
"""No channel draws more; two readings further apart than a wrap at this power have lost count."""

PLAUSIBLE_POWER_W = 10_000.0
"""A counter that moved further than this power allows was set anew, or shows what it never counted."""

LARGEST_RAW = 2**63 - 1
"""The largest count that a record can hold."""

_JUMP_S = 1.0  # a counter's late update, and two readings in quick succession, are no jump

PERIODS_TO_RESOLVE = 3
"""A window shorter than this many periods of the counter says nothing."""

STALE_PERIODS = 100
STALE_S = 0.5
LEAST_POWER_W = 0.1
"""What is in the total draws more even where nothing runs: a counter that shows less for long is stuck."""


class Flag(IntFlag):
    """What is to be known about one record of a channel's joules."""

    OK = 0
    FIRST = 1
    """The first reading: there is nothing yet to take a difference from."""
    GAP = 2
    """A reading is missing here or just before: the joules are not known."""
    WRAPPED = 4
    """The counter passed its largest value; the joules are right."""
    RESET = 8
    """The counter started anew, or moved further than hardware can draw: the joules are not known."""
    LOST_COUNT = 16
    """Too long since the reading before: the counter may have wrapped twice, or samples of power are too far
    apart to be summed up. The joules are not known."""
    BY_MODEL = 32
    """Joules from worker activity and assumed watts; there is no counter behind them."""
    STALE = 64
    """The counter has stood still for longer than any hardware draws nothing: the joules are not known."""


BREAKS = Flag.GAP | Flag.RESET | Flag.LOST_COUNT | Flag.STALE

# As plain integers, since operations on flags cost more than all else about a reading.
_FIRST, _GAP, _RESET, _LOST_COUNT, _STALE, _BREAKS = map(
    int, (Flag.FIRST, Flag.GAP, Flag.RESET, Flag.LOST_COUNT, Flag.STALE, BREAKS)
)


@dataclass(frozen=True, slots=True)
class Step:
    """One record of a channel: a reading, or its absence, and the joules since the record before."""

    t_ns: int
    raw: int | None
    joules: float | None
    watts: float | None
    flags: Flag


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a channel's record, to take windows between."""

    t_ns: int
    counts: int
    breaks: int
    valid: bool
    """Whether a value was read here."""
    flags: Flag
    """All flags so far that mean unknown joules."""


@dataclass(frozen=True, slots=True)
class CounterEnergy:
    """A channel's joules between two marks."""

    seconds: float
    joules: float | None
    """None where a reading was missing, or the counter reset or lost count."""
    bound_j: float | None
    """Largest error of `joules`: one period of the counter at the window's mean power, plus one count.

    A counter that is updated every T seconds is up to T late at both ends, so the difference is off by less
    than T times the power there.
    """
    resolvable: bool
    """False where the window is shorter than three periods of the counter, or none of its counts fell into it."""
    complete: bool


def longest_interval_s(channel: Channel) -> float | None:
    """How far apart two readings may be at most for the joules between them to be known; None: any distance.

    Less than a wrap at `LARGEST_POWER_W`, and less than the channel's `longest_gap_s`.
    """
    limits_s = [] if channel.longest_gap_s is None else [channel.longest_gap_s]
    if channel.wrap is not None:
        limits_s.append(channel.wrap * channel.unit_j / LARGEST_POWER_W)
    return min(limits_s, default=None)


def count_difference(before: int, after: int, wrap: int | None) -> tuple[int | None, Flag]:
    """Counts from `before` to `after`, at most one wrap apart; None with `Flag.RESET` if it started anew."""
    if after >= before:
        return after - before, Flag.OK
    if wrap is None:
        return None, Flag.RESET
    return (after - before) % wrap, Flag.WRAPPED


@final
class CounterTrack:
    """Follows one channel's counter through its readings and the readings that failed."""

    __slots__ = (
        "_breaks",
        "_counts",
        "_flags",
        "_last_raw",
        "_limit",
        "_lost_ns",
        "_moved_ns",
        "_stale_ns",
        "_started",
        "_t_ns",
        "_unit_j",
        "_valid",
        "channel",
    )

    def __init__(self, channel: Channel, *, resumed: bool = False) -> None:
        """`resumed`: readings before the first were lost with the process that took them."""
        self.channel = channel
        self._unit_j = channel.unit_j
        self._limit = LARGEST_RAW + 1 if channel.wrap is None else channel.wrap
        longest_s = longest_interval_s(channel)
        self._lost_ns = float("inf") if longest_s is None else longest_s * 1e9
        self._stale_ns = stale_after_s(channel) * 1e9
        self._last_raw: int | None = None
        self._moved_ns = 0
        self._started = resumed
        self._t_ns = 0
        self._counts = 0
        self._breaks = 0
        self._valid = False
        self._flags = 0

    @property
    def mark(self) -> Mark:
        """Where the record stands now."""
        return Mark(self._t_ns, self._counts, self._breaks, self._valid, Flag(self._flags))

    def add(self, reading: Reading) -> Step:
        """Take a reading; `ValueError` if it is another channel's or none that this counter can show."""
        if reading.channel != self.channel.name:
            raise ValueError(f"a reading of {reading.channel} was given to the record of {self.channel.name}")
        joules, watts, flags = self.advance(reading.t_ns, reading.raw)
        return Step(reading.t_ns, reading.raw, joules, watts, Flag(flags))

    def advance(self, t_ns: int, raw: int) -> tuple[float | None, float | None, int]:
        """`add` for a sampler's inner loop: joules and watts since the reading before, and the flags."""
        if not 0 <= raw < self._limit:
            raise ValueError(
                f"{self.channel.name} cannot stand at {raw}, its range is 0 to {self._limit - 1}"
            )
        before, last_ns = self._last_raw, self._t_ns
        elapsed_ns = t_ns - last_ns
        self._last_raw, self._t_ns, self._valid = raw, t_ns, True
        if before is None:
            flags, self._started, self._moved_ns = (_GAP if self._started else _FIRST), True, t_ns
            return None, None, flags
        counts, flags = raw - before, 0
        if counts < 0:
            wrapped, kind = count_difference(before, raw, self.channel.wrap)
            counts, flags = wrapped or 0, int(kind)
        # Until when it stood still: now, or, where it moves again, the last reading.
        stood_ns = (last_ns if counts or flags else t_ns) - self._moved_ns
        if counts or flags:
            self._moved_ns = t_ns
        joules = counts * self._unit_j
        if not 0 <= elapsed_ns < self._lost_ns:
            flags = _LOST_COUNT
        elif stood_ns >= self._stale_ns:
            flags = _STALE
        elif joules > PLAUSIBLE_POWER_W * (elapsed_ns * 1e-9 + _JUMP_S):
            flags = _RESET
        if flags & _BREAKS:
            self._breaks += 1
            self._flags |= flags
            return None, None, flags
        self._counts += counts
        return joules, joules * 1e9 / elapsed_ns if elapsed_ns > 0 else None, flags

    def miss(self, t_ns: int) -> Step:
        """A reading that failed: the joules until the next one are not known."""
        self._last_raw, self._t_ns, self._valid = None, t_ns, False
        self._started = True
        self._breaks += 1
        self._flags |= _GAP
        return Step(t_ns, None, None, None, Flag.GAP)


def stale_after_s(channel: Channel) -> float:
    """For how long a channel's counter may show the same value; infinite outside of the total.

    Packages, memory and GPUs draw power while they are on; cores that sleep and a GPU that is not there may not.
    """
    if not channel.in_total:
        return float("inf")
    return max(STALE_S, STALE_PERIODS * channel.period_s, channel.unit_j / LEAST_POWER_W)


def energy_between(channel: Channel, start: Mark, end: Mark) -> CounterEnergy:
    """A channel's joules from one mark to a later one."""
    seconds = (end.t_ns - start.t_ns) * 1e-9
    moved = end.counts > start.counts or not channel.in_total
    resolvable = seconds >= PERIODS_TO_RESOLVE * channel.period_s and moved
    if not (start.valid and end.valid and start.breaks == end.breaks):
        return CounterEnergy(seconds, None, None, resolvable, complete=False)
    joules = (end.counts - start.counts) * channel.unit_j
    power_w = joules / seconds if seconds > 0 else 0.0
    return CounterEnergy(
        seconds, joules, channel.period_s * power_w + channel.unit_j, resolvable, complete=True
    )
