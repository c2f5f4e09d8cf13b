"""From cumulative counts to joules: wraps, resets, gaps, windows and their error bounds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import final

from energy.source import Channel, Reading

LARGEST_POWER_W = 1000.0
"""No channel draws more; two readings further apart than a wrap at this power have lost count."""

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
    """The counter started anew: the joules are not known."""
    LOST_COUNT = 16
    """So long since the reading before that the counter may have wrapped more than once: joules not known."""
    BY_MODEL = 32
    """Joules from worker activity and assumed watts; there is no counter behind them."""
    STALE = 64
    """The counter has stood still for longer than any hardware draws nothing: the joules are not known."""


BREAKS = Flag.GAP | Flag.RESET | Flag.LOST_COUNT | Flag.STALE


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

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._last: Reading | None = None
        self._mark = Mark(t_ns=0, counts=0, breaks=0, valid=False, flags=Flag.OK)
        self._started = False
        self._moved_t_ns = 0
        self._stale_after_s = stale_after_s(channel)

    @property
    def mark(self) -> Mark:
        """Where the record stands now."""
        return self._mark

    def add(self, reading: Reading) -> Step:
        """Take a reading; `ValueError` if it is another channel's or none that this counter can show."""
        self._check(reading)
        last, self._last = self._last, reading
        if last is None:
            flags = Flag.GAP if self._started else Flag.FIRST
            self._started = True
            self._moved_t_ns = reading.t_ns
            self._move(reading.t_ns, 0, flags=Flag.OK, valid=True)
            return Step(reading.t_ns, reading.raw, None, None, flags)
        counts, flags = count_difference(last.raw, reading.raw, self.channel.wrap)
        elapsed_s = (reading.t_ns - last.t_ns) * 1e-9
        stale = self._is_stale(reading.t_ns, moved=reading.raw != last.raw)
        if self._may_have_lost_count(elapsed_s):
            counts, flags = None, Flag.LOST_COUNT
        elif stale:
            counts, flags = None, Flag.STALE
        self._move(reading.t_ns, counts or 0, flags=flags & BREAKS, valid=True)
        if counts is None:
            return Step(reading.t_ns, reading.raw, None, None, flags)
        joules = counts * self.channel.unit_j
        return Step(reading.t_ns, reading.raw, joules, joules / elapsed_s if elapsed_s > 0 else None, flags)

    def miss(self, t_ns: int) -> Step:
        """A reading that failed: the joules until the next one are not known."""
        self._last = None
        self._started = True
        self._move(t_ns, 0, flags=Flag.GAP, valid=False)
        return Step(t_ns, None, None, None, Flag.GAP)

    def _check(self, reading: Reading) -> None:
        wrap = self.channel.wrap
        if reading.channel != self.channel.name:
            raise ValueError(f"a reading of {reading.channel} was given to the record of {self.channel.name}")
        if reading.raw < 0 or (wrap is not None and reading.raw >= wrap):
            raise ValueError(f"{reading.channel} cannot stand at {reading.raw}, its range is 0 to {wrap}")

    def _is_stale(self, t_ns: int, *, moved: bool) -> bool:
        """Whether the counter stood still for too long up to now, or, where it moves again, up to the last reading."""
        stood_until_ns = self._mark.t_ns if moved else t_ns
        stale = (stood_until_ns - self._moved_t_ns) * 1e-9 >= self._stale_after_s
        if moved:
            self._moved_t_ns = t_ns
        return stale

    def _may_have_lost_count(self, elapsed_s: float) -> bool:
        wrap = self.channel.wrap
        return wrap is not None and elapsed_s * LARGEST_POWER_W >= wrap * self.channel.unit_j

    def _move(self, t_ns: int, counts: int, *, flags: Flag, valid: bool) -> None:
        mark = self._mark
        self._mark = Mark(t_ns, mark.counts + counts, mark.breaks + bool(flags), valid, mark.flags | flags)


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
