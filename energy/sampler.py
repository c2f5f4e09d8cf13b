"""Polls open sources at a fixed rate, so that no wrap is lost, and records every reading."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from energy.counters import LARGEST_POWER_W, CounterTrack, Mark, Step, energy_between
from energy.source import Channel, ReadError, Source, SourceUnavailableError
from energy.stream import PowerStream

_LIVE_SPAN_S = 1.0


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


class SamplerError(RuntimeError):
    """The sampler has stopped; the cause is its `__cause__`."""


@final
class ThreadSampler:
    """Samples in a thread of this process.

    Everything that windows need goes through `start`, `sample`, `live` and `stop`, so that a sampler in a
    process of its own can take this one's place.
    """

    def __init__(self, sources: Sequence[Source], rate_hz: float, stream: PowerStream | None = None) -> None:
        if not (0 < rate_hz < float("inf")):
            raise ValueError(f"rate_hz must be more than 0, got {rate_hz}")
        self._sources = tuple(sources)
        self._period_s = 1.0 / rate_hz
        self._stream = stream
        self._names: list[tuple[str, ...]] = []
        self._tracks: dict[str, CounterTrack] = {}
        self._recent: dict[str, deque[Mark]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def channels(self) -> dict[str, Channel]:
        """Every source's channels by name; empty before `open`."""
        return {name: track.channel for name, track in self._tracks.items()}

    def open(self) -> None:
        """Open the sources. Raises `SourceUnavailableError`, with none of them left open."""
        try:
            for source in self._sources:
                source.open()
                self._names.append(tuple(channel.name for channel in source.channels))
                for channel in source.channels:
                    self._add(source, channel)
        except BaseException:
            self._close_sources()
            raise

    def _add(self, source: Source, channel: Channel) -> None:
        if channel.name in self._tracks:
            raise SourceUnavailableError(
                source.name,
                f"channel {channel.name} is read twice",
                "name each source once in energy.sources",
            )
        if channel.wrap is not None:
            shortest_s = channel.wrap * channel.unit_j / LARGEST_POWER_W
            if self._period_s > shortest_s / 2:
                raise ValueError(
                    f"rate_hz={1 / self._period_s:g} is too low: {channel.name} can wrap within "
                    f"{shortest_s:.3g} s, choose at least {2 / shortest_s:.3g}"
                )
        self._tracks[channel.name] = CounterTrack(channel)
        held = max(_LIVE_SPAN_S, 3 * channel.period_s) / self._period_s
        self._recent[channel.name] = deque(maxlen=int(held) + 2)

    def start(self) -> None:
        """Take the first sample and go on by itself; without sources there is nothing to do."""
        if not self._sources:
            return
        self.sample()
        self._thread = threading.Thread(target=self._run, name="energy-sampler", daemon=True)
        self._thread.start()

    def sample(self) -> Snapshot:
        """Read every source now. Raises `SamplerError` if sampling has failed since the last call."""
        with self._lock:
            if self._error is not None:
                raise SamplerError(f"the energy sampler has stopped: {self._error}") from self._error
            before_ns = time.monotonic_ns()
            try:
                self._poll()
            except Exception as error:
                self._error = error
                raise SamplerError(f"the energy sampler has stopped: {error}") from error
            marks = {name: track.mark for name, track in self._tracks.items()}
            return Snapshot((before_ns + time.monotonic_ns()) // 2, marks)

    def live(self) -> dict[str, LivePower]:
        """Power by channel; a channel without enough recent readings is left out."""
        with self._lock:
            now_ns = time.monotonic_ns()
            found = {}
            for name, recent in self._recent.items():
                if len(recent) < 2:
                    continue
                energy = energy_between(self._tracks[name].channel, recent[0], recent[-1])
                if energy.joules is not None and energy.seconds > 0:
                    watts = energy.joules / energy.seconds
                    found[name] = LivePower(watts, (now_ns - recent[-1].t_ns) * 1e-9)
            return found

    def stop(self) -> None:
        """End the thread and close the sources."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._close_sources()

    def _run(self) -> None:
        next_s = time.monotonic() + self._period_s
        while not self._stop.wait(max(0.0, next_s - time.monotonic())):
            try:
                self.sample()
            except SamplerError:
                return  # kept in self._error: whoever samples next hears of it
            next_s = max(next_s + self._period_s, time.monotonic())

    def _poll(self) -> None:
        steps: list[tuple[str, Step]] = []
        for source, names in zip(self._sources, self._names, strict=True):
            try:
                readings = source.read()
            except ReadError as error:
                readings = error.readings
            missing = dict.fromkeys(names)
            for reading in readings:
                track = self._tracks[reading.channel]
                try:
                    steps.append((reading.channel, track.add(reading)))
                except ValueError:
                    continue  # not a value that this counter can show, so it stays missing
                missing.pop(reading.channel, None)
            steps.extend((name, self._tracks[name].miss(time.monotonic_ns())) for name in missing)
        for name, track in self._tracks.items():
            recent = self._recent[name]
            recent.append(track.mark)
            if not track.mark.valid:
                recent.clear()
        if self._stream is not None:
            self._stream.append(steps)

    def _close_sources(self) -> None:
        for source in self._sources:
            source.close()
