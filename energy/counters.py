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


BREAKS = Flag.GAP | Flag.RESET | Flag.LOST_COUNT


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
    """False where the window is shorter than three periods of the counter."""
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

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._last: Reading | None = None
        self._mark = Mark(t_ns=0, counts=0, breaks=0, valid=False, flags=Flag.OK)
        self._started = False

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
            self._move(reading.t_ns, 0, flags=Flag.OK, valid=True)
            return Step(reading.t_ns, reading.raw, None, None, flags)
        counts, flags = count_difference(last.raw, reading.raw, self.channel.wrap)
        elapsed_s = (reading.t_ns - last.t_ns) * 1e-9
        if elapsed_s < 0 or self._may_have_lost_count(elapsed_s):
            counts, flags = None, Flag.LOST_COUNT
        elif counts is not None and self._is_a_jump(counts, elapsed_s):
            counts, flags = None, Flag.RESET
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
        largest = LARGEST_RAW if wrap is None else wrap - 1
        if not 0 <= reading.raw <= largest:
            raise ValueError(f"{reading.channel} cannot stand at {reading.raw}, its range is 0 to {largest}")

    def _may_have_lost_count(self, elapsed_s: float) -> bool:
        longest_s = longest_interval_s(self.channel)
        return longest_s is not None and elapsed_s >= longest_s

    def _is_a_jump(self, counts: int, elapsed_s: float) -> bool:
        return counts * self.channel.unit_j > PLAUSIBLE_POWER_W * (elapsed_s + _JUMP_S)

    def _move(self, t_ns: int, counts: int, *, flags: Flag, valid: bool) -> None:
        mark = self._mark
        self._mark = Mark(t_ns, mark.counts + counts, mark.breaks + bool(flags), valid, mark.flags | flags)


def energy_between(channel: Channel, start: Mark, end: Mark) -> CounterEnergy:
    """A channel's joules from one mark to a later one."""
    seconds = (end.t_ns - start.t_ns) * 1e-9
    resolvable = seconds >= PERIODS_TO_RESOLVE * channel.period_s
    if not (start.valid and end.valid and start.breaks == end.breaks):
        return CounterEnergy(seconds, None, None, resolvable, complete=False)
    joules = (end.counts - start.counts) * channel.unit_j
    power_w = joules / seconds if seconds > 0 else 0.0
    return CounterEnergy(
        seconds, joules, channel.period_s * power_w + channel.unit_j, resolvable, complete=True
    )
