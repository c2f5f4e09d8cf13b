"""Reads one open source, follows its counters, writes its records and shows its watts."""

from __future__ import annotations

import math
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, final

from energy.counters import CounterTrack, Flag, Mark, energy_between
from energy.live import LivePage
from energy.source import RawSource, ReadError, Source
from energy.stream import Row
from energy.ticks import Loop, NativeTicks, native_loop

_LIVE_SPAN_S = 1.0
_SHOW_NS = 80_000_000
_BIN_NS = 10_000
_BINS = 10_000
MOST_HELD = 50
"""So many readings are counted at once at most: more would delay the next one."""
_EDGES = 14
"""And so many more at edges of windows, each of which counts what is held."""


@final
class LiveWatts:
    """The watts of all channels as far as they are known, put into a page."""

    def __init__(self, page: LivePage, in_total: Sequence[bool]) -> None:
        self._page = page
        self._in_total = in_total
        self._watts = [math.nan] * len(in_total)
        self._t_ns = [0] * len(in_total)

    def show(self, index: int, t_ns: int, watts: float) -> None:
        """The watts of one channel, by its place among all of them."""
        self._watts[index], self._t_ns[index] = watts, t_ns
        self._page.write(index, t_ns, watts)

    def show_total(self) -> None:
        """The sum of what is in the total, which is as old as its oldest part."""
        if any(self._in_total):
            parts = [index for index, counts in enumerate(self._in_total) if counts]
            total_w = sum(self._watts[index] for index in parts)
            self._page.write_total(min(self._t_ns[index] for index in parts), total_w)


@final
class Lateness:
    """How late readings were, in bins of 10 us up to 0.1 s."""

    def __init__(self) -> None:
        self._bins = array("L", bytes(array("L").itemsize * (_BINS + 1)))
        self.skipped = 0
        """Readings whose time was slept through."""

    def add(self, late_ns: int) -> None:
        """Count one reading."""
        self._bins[min(max(late_ns, 0) // _BIN_NS, _BINS)] += 1

    def merge(self, other: Lateness) -> None:
        """Count the readings of another source, too."""
        self._bins = array("L", map(sum, zip(self._bins, other._bins, strict=True)))
        self.skipped += other.skipped

    @property
    def samples(self) -> int:
        """How many readings were counted."""
        return sum(self._bins)

    def percentile_s(self, share: float) -> float:
        """The lateness that this share of the readings stays within; NaN without any, 0.1 for all beyond."""
        seen, wanted = 0, share * self.samples
        for bin_, count in enumerate(self._bins):
            seen += count
            if count and seen >= wanted:
                return min(bin_ + 1, _BINS) * _BIN_NS * 1e-9
        return math.nan


@final
class PolledSource:
    """An open source and what was read of it. One thread at a time.

    `first` is the place of its first channel among those of all sources.
    `resumed`: readings before the first were lost with the process that took them.
    `loop`: what reads it; None takes `native` where that is compiled and the source is nothing but files.
    Raises `ValueError` where the loop asked for cannot read it.
    """

    def __init__(
        self,
        source: Source,
        first: int,
        live: LiveWatts,
        *,
        resumed: bool = False,
        loop: Loop | None = None,
    ) -> None:
        self._source = source
        self._first = first
        self._live = live
        self._tracks = [CounterTrack(channel, resumed=resumed) for channel in source.channels]
        self._recent: list[deque[Mark]] = [deque() for _ in self._tracks]
        self._held: list[Any] = []
        """Time and counts, or the reason for none, of channel after channel, reading after reading."""
        self._read_raw: Callable[[list[Any]], None] = self._read_objects
        self._counts: Callable[[Any], int] = int
        if isinstance(source, RawSource):
            self._read_raw, self._counts = source.read_raw, source.counts
        self.ticks = _native_ticks(source, loop)
        """What reads the source in C and holds the readings in place of this object; None where Python reads."""
        self._shown_ns = 0
        self.troubles: dict[str, tuple[int, str]] = {}
        """How often each channel could not be read, and why the first time."""

    @property
    def marks(self) -> dict[str, Mark]:
        """Where the channels' records stand, as of the last `settle`."""
        return {track.channel.name: track.mark for track in self._tracks}

    def read(self) -> None:
        """Read the source; whatever it raises makes its channels missing."""
        if self.ticks is not None:
            self.ticks.read()
            return
        held, before = self._held, len(self._held)
        try:
            self._read_raw(held)
            if len(held) != before + 2 * len(self._tracks):
                raise ValueError(f"it gave {len(held) - before} numbers for {len(self._tracks)} channels")
        except Exception as error:
            del held[before:]
            held += [time.monotonic_ns(), f"{type(error).__name__}: {error}"] * len(self._tracks)

    def _read_objects(self, into: list[Any]) -> None:
        failed: dict[str, str] = {}
        try:
            readings = self._source.read()
        except ReadError as error:
            readings, failed = error.readings, error.failed
        found = {reading.channel: reading for reading in readings}
        now_ns = time.monotonic_ns()
        for track in self._tracks:
            name = track.channel.name
            if name in found:
                into += [found[name].t_ns, found[name].raw]
            else:
                into += [now_ns, failed.get(name, "no reading of it came")]

    def settle(self) -> list[Row]:
        """Count what was read since the last call and show the watts; returns its rows for the stream."""
        rows: list[Row] = []
        times_ns, values = self._take() if self.ticks is None else self.ticks.take()
        as_counts, append = self._counts, rows.append
        tracks = [(index, track, track.advance) for index, track in enumerate(self._tracks, self._first)]
        for (index, track, advance), t_ns, raw in zip(cycle(tracks), times_ns, values, strict=False):
            try:
                if raw.__class__ is int:
                    counts = raw
                elif raw.__class__ is str:
                    raise ValueError(raw)
                else:
                    counts = as_counts(raw)
                joules, watts, flags = advance(t_ns, counts)
            except ValueError as error:  # a reason, or a number that this counter cannot show
                counts, (joules, watts, flags) = None, self._miss(track, t_ns, str(error))
            append((index, t_ns, counts, joules, watts, flags))
        if rows and rows[-1][1] - self._shown_ns >= _SHOW_NS:
            self._show()
        return rows

    def _take(self) -> tuple[list[int], list[Any]]:
        held, self._held = self._held, []
        return held[::2], held[1::2]

    def _show(self) -> None:
        for index, track in enumerate(self._tracks):
            mark = track.mark
            self._live.show(self._first + index, mark.t_ns, self._watts(index, mark))
        self._live.show_total()
        self._shown_ns = mark.t_ns

    def _miss(self, track: CounterTrack, t_ns: int, why: str) -> tuple[None, None, int]:
        track.miss(t_ns)
        times, first = self.troubles.get(track.channel.name, (0, why))
        self.troubles[track.channel.name] = (times + 1, first)
        return None, None, int(Flag.GAP)

    def _watts(self, index: int, mark: Mark) -> float:
        """A channel's mean power over about the last second; NaN where it is not known."""
        recent, channel = self._recent[index], self._tracks[index].channel
        if not mark.valid or (recent and recent[-1].breaks != mark.breaks):
            recent.clear()
        if not mark.valid:
            return math.nan
        recent.append(mark)
        span_ns = max(_LIVE_SPAN_S, 3 * channel.period_s) * 1e9
        while len(recent) > 2 and recent[1].t_ns <= mark.t_ns - span_ns:
            recent.popleft()
        energy = energy_between(channel, recent[0], mark)
        return math.nan if energy.joules is None or energy.seconds <= 0 else energy.joules / energy.seconds


def _native_ticks(source: Source, loop: Loop | None) -> NativeTicks | None:
    files = source.files if isinstance(source, RawSource) else None
    if loop == "python" or (loop is None and (files is None or native_loop() is None)):
        return None
    if files is None:
        raise ValueError(f"the native loop reads open files only, and {source.name} is more than that")
    return NativeTicks(files, MOST_HELD + _EDGES)
