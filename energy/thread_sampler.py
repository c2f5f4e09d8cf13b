"""A sampler in threads of this process: the inside of a sampler's own process, and what simulated runs have."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import final

from energy.counters import longest_interval_s
from energy.live import LivePage
from energy.polling import MOST_HELD, Lateness, LiveWatts, PolledSource
from energy.sampler import LivePower, RateHz, Sampler, SamplingReport, Snapshot, rate_of, read_live
from energy.source import Channel, Quality, Source, SourceUnavailableError
from energy.stream import PowerStream, StreamError
from energy.ticks import Loop
from energy.timer import PeriodicTimer

_SETTLE_NS = 200_000_000
"""Readings wait so long at most until they are counted, written and shown."""


@final
class _Polling:
    """A thread that polls one source; a reading at a window's edge comes in between under the lock."""

    def __init__(self, source: PolledSource, rate_hz: float, sampler: ThreadSampler) -> None:
        self.source = source
        self.lock = threading.Lock()
        self.lateness = Lateness()
        self.cpu_s = 0.0
        self._period_ns = max(1, round(1e9 / rate_hz))
        self._sampler = sampler
        self._stop = False
        self._due_ns = time.monotonic_ns() + self._period_ns
        self._timer = PeriodicTimer(self._due_ns, self._period_ns)
        self._per_settle = min(max(1, _SETTLE_NS // self._period_ns), MOST_HELD)
        run = self._run_python if source.ticks is None else self._run_native
        self._thread = threading.Thread(target=run, name="energy-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop = True
        if self.source.ticks is not None:
            self.source.ticks.stop()
        self._timer.fire()
        self._thread.join()
        self._timer.close()

    def _run_native(self) -> None:
        ticks = self.source.ticks
        assert ticks is not None
        goes_on = True
        while goes_on:
            goes_on = ticks.run(self._timer, self._per_settle)
            with self.lock:
                self._sampler.settle(self.source)
                self._note_lateness(ticks.woken_ns, ticks.ticks)
        self.cpu_s = time.thread_time()

    def _run_python(self) -> None:
        # Between two readings the caches forget this code, so that each call in here costs microseconds.
        wait, clock, read, lock = self._timer.wait, time.monotonic_ns, self.source.read, self.lock
        per_settle = self._per_settle
        woken: list[int] = []
        fired: list[int] = []
        while True:
            count = wait()
            if self._stop:
                break
            woken.append(clock())
            fired.append(count)
            with lock:
                read()
                if len(woken) >= per_settle:
                    self._sampler.settle(self.source)
                    self._note_lateness(woken, fired)
        self._note_lateness(woken, fired)
        self.cpu_s = time.thread_time()

    def _note_lateness(self, woken: list[int], fired: list[int]) -> None:
        for woken_ns, count in zip(woken, fired, strict=True):
            self.lateness.add(woken_ns - self._due_ns)
            self.lateness.skipped += count - 1
            self._due_ns += count * self._period_ns
        woken.clear()
        fired.clear()


@final
class ThreadSampler(Sampler):
    """Samples each source in a thread of its own, which a long hold of Python's lock delays.

    `resumed`: readings before the first were lost with the process that took them.
    `loop`: what reads the sources; None takes for each the best that there is.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        rate_hz: RateHz,
        stream: PowerStream | None,
        page: LivePage,
        *,
        resumed: bool = False,
        loop: Loop | None = None,
    ) -> None:
        self._sources = tuple(sources)
        self._rates_hz = [rate_of(source.name, rate_hz) for source in self._sources]
        self._stream = stream
        self._stream_trouble: str | None = None
        self._page = page
        self._resumed = resumed
        self._loop = loop
        self._loops: dict[str, Loop] = {}
        self._channels: dict[str, Channel] = {}
        self._qualities: dict[str, Quality] = {}
        self._polled: list[PolledSource] = []
        self._polling: list[_Polling] = []
        self._started_ns = 0
        self.report: SamplingReport | None = None
        """How the times were kept, once stopped."""

    @property
    def channels(self) -> dict[str, Channel]:
        return self._channels

    @property
    def qualities(self) -> dict[str, Quality]:
        return self._qualities

    @property
    def loops(self) -> dict[str, Loop]:
        return self._loops

    @property
    def trouble(self) -> str | None:
        told = [
            f"{name} could not be read ({times}x; the first time: {why})"
            for polled in self._polled
            for name, (times, why) in list(polled.troubles.items())
        ]
        return "; ".join([*told, *filter(None, [self._stream_trouble])]) or None

    def open(self) -> None:
        try:
            for source, rate_hz in zip(self._sources, self._rates_hz, strict=True):
                source.open()
                for channel in source.channels:
                    self._add(source, channel, rate_hz)
            self._poll()
        except BaseException:
            self._close_sources()
            raise

    def _poll(self) -> None:
        live = LiveWatts(self._page, [channel.in_total for channel in self._channels.values()])
        first = 0
        for source in self._sources:
            polled = PolledSource(source, first, live, resumed=self._resumed, loop=self._loop)
            self._polled.append(polled)
            loop: Loop = "python" if polled.ticks is None else "native"
            self._loops |= dict.fromkeys((channel.name for channel in source.channels), loop)
            first += len(source.channels)

    def _add(self, source: Source, channel: Channel, rate_hz: float) -> None:
        if channel.name in self._channels:
            raise SourceUnavailableError(
                source.name,
                f"channel {channel.name} is read twice",
                "name each source once in energy.sources",
            )
        longest_s = longest_interval_s(channel)
        counts = channel.in_total or channel.wrap is not None
        if counts and longest_s is not None and 1 / rate_hz > longest_s / 2:
            why = (
                f"needs samples within {longest_s:.3g} s"
                if channel.integrated
                else f"can wrap within {longest_s:.3g} s"
            )
            raise ValueError(
                f"rate_hz={rate_hz:g} is too low: {channel.name} {why}, choose at least {2 / longest_s:.3g}"
            )
        self._channels[channel.name] = channel
        self._qualities[channel.name] = source.quality

    def start(self) -> None:
        self._started_ns = time.monotonic_ns()
        for polled in self._polled:
            polled.read()
            self.settle(polled)
        for polled, rate_hz in zip(self._polled, self._rates_hz, strict=True):
            self._polling.append(_Polling(polled, rate_hz, self))

    def sample(self) -> Snapshot:
        with ExitStack() as locks:
            for polling in self._polling:
                locks.enter_context(polling.lock)
            before_ns = time.monotonic_ns()
            for polled in self._polled:
                polled.read()
            t_ns = (before_ns + time.monotonic_ns()) // 2
            for polled in self._polled:
                self.settle(polled)
            return Snapshot(
                t_ns, {name: mark for polled in self._polled for name, mark in polled.marks.items()}
            )

    def settle(self, polled: PolledSource) -> None:
        """Count and write what was read of a source, whose lock is held."""
        rows = polled.settle()
        stream = self._stream
        if stream is not None and rows:
            try:
                stream.append_rows(rows)
            except StreamError as error:
                self._stream = None
                self._stream_trouble = f"{error}, so that it ends there; windows are counted on"

    def live(self) -> dict[str, LivePower]:
        return read_live(self._page, self._channels)

    def stop(self) -> None:
        polling, self._polling = self._polling, []
        for thread in polling:
            thread.stop()
            self.settle(thread.source)
        if polling:
            self._page.forget()
            self._report(polling)
        self._close_sources()

    def _report(self, polling: list[_Polling]) -> None:
        lateness = Lateness()
        for thread in polling:
            lateness.merge(thread.lateness)
        self.report = SamplingReport(
            samples=lateness.samples,
            skipped=lateness.skipped,
            late_p50_s=lateness.percentile_s(0.50),
            late_p99_s=lateness.percentile_s(0.99),
            loops=dict(self._loops),
            cpu_s=sum(thread.cpu_s for thread in polling),
            seconds=(time.monotonic_ns() - self._started_ns) * 1e-9,
        )

    def _close_sources(self) -> None:
        for source in self._sources:
            source.close()
