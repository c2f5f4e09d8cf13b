"""Energy of windows of a run: from counters, and from worker activity where there are none."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import TracebackType
from typing import Any, Self, final

from energy.activity import BASE, ActivityEnergy, PowerModel, TaskRecords, activity_energy, power_trace
from energy.baseline import IdleWatts, idle_watts
from energy.counters import PERIODS_TO_RESOLVE, CounterEnergy, Flag, Step, energy_between
from energy.live import LivePage
from energy.process_sampler import ProcessSampler
from energy.sampler import DEFAULT_RATE, LivePower, RateHz, Sampler, Snapshot, check_rates
from energy.source import QUALITIES, Channel, Quality, Source
from energy.stream import PowerStream
from energy.thread_sampler import ThreadSampler
from energy.ticks import Loop
from energy.window import Activity, ChannelEnergy, Window, WindowEnergy, sum_up

_IDLE_PARTS = 5

_COVERED_BY = {"package": {BASE, "cpu"}, "gpu": {"gpu"}, "board": {BASE, "cpu", "gpu"}}


@final
class EnergySession:
    """Counts the joules of windows.

    `sources` are opened and sampled at `rate_hz` (of all, or by the source's name with a `default`) by a process
    of its own, or by a thread where a source can be read in this process only; every reading goes to `stream`, live
    watts to `page`.
    `power_model` fills in only for components that no counter covers: a package counter covers the model's
    `base` and `cpu`, a gpu counter its `gpu`. Its joules carry `activity_quality`.
    `idle_w` is a baseline in watts by channel, measured earlier (`measure_idle`).

    In a simulated run there is nothing to read: `activity_quality="simulated"` takes no sources, and the
    stream's times are the simulated clock's.
    """

    def __init__(
        self,
        sources: Sequence[Source] = (),
        power_model: PowerModel | None = None,
        *,
        activity_quality: Quality = "estimated",
        stream: PowerStream | None = None,
        rate_hz: RateHz = 10.0,
        page: LivePage | None = None,
        idle_w: Mapping[str, float] | None = None,
    ) -> None:
        if activity_quality == "simulated" and sources:
            names = ", ".join(source.name for source in sources)
            raise ValueError(f"a simulated run has no counters of its own, but sources are {names}")
        if activity_quality not in QUALITIES:
            raise ValueError(f"there is no quality {activity_quality!r}; there are {', '.join(QUALITIES)}")
        self._model = power_model
        self._activity_quality = activity_quality
        self._stream = stream
        check_rates(rate_hz, [source.name for source in sources])
        # What the model fills in is traced at the rate of what has no rate of its own.
        self._trace_hz = (
            rate_hz.get(DEFAULT_RATE, max(rate_hz.values())) if isinstance(rate_hz, Mapping) else rate_hz
        )
        shown = LivePage() if page is None else page
        self._own_page = shown if page is None else None
        in_thread = not sources or any(source.in_process for source in sources)
        self._sampler: Sampler = (ThreadSampler if in_thread else ProcessSampler)(
            sources, rate_hz, stream, shown
        )
        self._quality: dict[str, Quality] = {}
        self._filled: tuple[str, ...] = ()
        self._idle_w = dict(idle_w or {})
        self._traced_until_s = float("-inf")
        self._open_windows: list[Window] = []
        self._is_open = False

    def open(self) -> None:
        """Open the sources and start sampling. Raises `SourceUnavailableError`."""
        self._sampler.open()
        try:
            self._quality = self._sampler.qualities
            covered = {
                part
                for channel in self.channels.values()
                if channel.in_total
                for part in _COVERED_BY.get(channel.component, ())
            }
            if self._model is not None:
                self._filled = tuple(name for name in self._model.channels if name not in covered)
            if self._stream is not None:
                self._stream.declare(self._described())
            self._sampler.start()
            self._is_open = True
        except BaseException:
            self._sampler.stop()
            raise

    def close(self) -> None:
        """Stop sampling, close the sources and the stream."""
        self._is_open = False
        self._sampler.stop()
        if self._stream is not None:
            self._stream.close()
        if self._own_page is not None:
            self._own_page.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def channels(self) -> dict[str, Channel]:
        """The counters' channels by name."""
        return self._sampler.channels

    @property
    def model_channels(self) -> tuple[str, ...]:
        """The channels that the power model fills in, by their names in the results."""
        return tuple(_model_name(channel) for channel in self._filled)

    @property
    def power_model(self) -> PowerModel | None:
        """The assumed watts."""
        return self._model

    @property
    def loops(self) -> dict[str, Loop]:
        """What reads each counter at its ticks: `native`, or `python`."""
        return self._sampler.loops

    @property
    def trouble(self) -> str | None:
        """What has gone wrong with the counters so far, in one line; None for nothing."""
        return self._sampler.trouble

    @property
    def idle_w(self) -> dict[str, float]:
        """The idle baseline in watts by channel of a counter."""
        return dict(self._idle_w)

    @idle_w.setter
    def idle_w(self, watts: Mapping[str, float]) -> None:
        """What net joules take off from now on."""
        self._idle_w = dict(watts)

    def measure_idle(self, seconds: float) -> dict[str, IdleWatts]:
        """Watts by channel over `seconds` in which the caller lets nothing run.

        Empty, at once, without counters. A channel with a missing reading gets none.
        `ValueError` where `seconds` is too short for a counter.
        """
        if not self.channels:
            return {}
        channels = self.channels.values()
        # What is beside the total (a GPU's averaged power) does not decide how long the baseline has to be.
        counted_in = [channel for channel in channels if channel.in_total] or list(channels)
        longest_s = max(channel.period_s for channel in counted_in)
        if not seconds >= PERIODS_TO_RESOLVE * longest_s or seconds <= 0:
            raise ValueError(
                f"an idle baseline of {seconds} s is too short, it needs {PERIODS_TO_RESOLVE * longest_s:g} s"
            )
        parts = max(1, min(_IDLE_PARTS, int(seconds / (PERIODS_TO_RESOLVE * longest_s))))
        edges = [self.snapshot()]
        for _ in range(parts):
            time.sleep(seconds / parts)
            edges.append(self.snapshot())
        counted = [self.between(start, end) for start, end in pairwise(edges)]
        found = {name: idle_watts([part[name] for part in counted]) for name in self.channels}
        return {name: watts for name, watts in found.items() if watts is not None}

    def live(self) -> dict[str, LivePower]:
        """Power by counter over about the last second."""
        return self._sampler.live()

    def open_window(self, name: str, index: int = 0) -> Window:
        """Start a window; windows may nest and overlap."""
        window = Window(self, name, index, self.snapshot())
        self._open_windows.append(window)
        return window

    def leave(self, window: Window) -> None:
        """A window is closed; what runs from now on is not in it."""
        if window in self._open_windows:
            self._open_windows.remove(window)

    @contextmanager
    def window(self, name: str, index: int = 0) -> Iterator[Window]:
        """A window around a block: `window.activity(...)` gives the tasks, `window.energy` is the result."""
        window = self.open_window(name, index)
        yield window
        window.close()

    def snapshot(self) -> Snapshot:
        """Read every counter now."""
        if not self._is_open:
            raise RuntimeError(
                "the energy session is not open: use it as `with EnergySession(...) as session`"
            )
        return self._sampler.sample()

    def activity(
        self,
        tasks: TaskRecords,
        start_s: float,
        end_s: float,
        start: Snapshot,
        window: Window | None = None,
    ) -> Activity:
        """The model's joules of what ran, which also goes to the stream and to the windows around `window`.

        `start` is the snapshot at `start_s`.
        """
        if self._model is None or not self._filled:
            return Activity(start_s, end_s, {})
        energies = activity_energy(self._model, tasks, start_s, end_s)
        self._record_activity(tasks, start_s, end_s, start)
        around = self._open_windows
        if window in around:
            around = around[: around.index(window)]
        for outer in around if window is not None else ():
            outer.enclose(self._model, tasks, start_s, end_s)
        return Activity(start_s, end_s, energies)

    def count(
        self, name: str, index: int, start: Snapshot, end: Snapshot, activity: Activity | None = None
    ) -> WindowEnergy:
        """The joules between two snapshots."""
        counted = self.between(start, end)
        channels = {channel: self._counter_channel(channel, energy) for channel, energy in counted.items()}
        seconds = (end.t_ns - start.t_ns) * 1e-9
        if self._filled:
            if activity is None:
                raise ValueError(
                    f"window {name!r}: {', '.join(self._filled)} have no counter, so the power model "
                    "needs close(tasks=..., start_s=..., end_s=...)"
                )
            channels |= {
                _model_name(channel): _activity_channel(activity.energies[channel], self._activity_quality)
                for channel in self._filled
            }
        if activity is not None and not counted:
            seconds = activity.end_s - activity.start_s
        return sum_up(name, index, (start, end), seconds, channels, self._resolvable(counted, channels))

    def between(self, start: Snapshot, end: Snapshot) -> dict[str, CounterEnergy]:
        """Each counter's joules between two snapshots, those outside of the total too."""
        return {
            name: energy_between(channel, start.marks[name], end.marks[name])
            for name, channel in self.channels.items()
        }

    def _counter_channel(self, name: str, energy: CounterEnergy) -> ChannelEnergy:
        idle_w = self._idle_w.get(name)
        idle_j = None if idle_w is None else idle_w * energy.seconds
        net_j = None if idle_j is None or energy.joules is None else energy.joules - idle_j
        return ChannelEnergy(
            gross_j=energy.joules,
            idle_j=idle_j,
            net_j=net_j,
            bound_j=energy.bound_j,
            quality=self._quality[name],
            in_total=self.channels[name].in_total,
            complete=energy.complete,
        )

    def _record_activity(self, tasks: TaskRecords, start_s: float, end_s: float, start: Snapshot) -> None:
        """Add the power trace of what the stream does not hold yet: a window may lie inside another."""
        from_s = max(start_s, self._traced_until_s)
        if self._stream is None or self._model is None or from_s >= end_s:
            return
        self._traced_until_s = end_s
        trace = power_trace(self._model, tasks, from_s, end_s, 1.0 / self._trace_hz)
        zero_ns = 0 if self._activity_quality == "simulated" else start.t_ns - round(start_s * 1e9)
        ends_s = trace.edges_s[1:]
        widths_s = ends_s - trace.edges_s[:-1]
        self._stream.append(
            (
                _model_name(channel),
                Step(
                    zero_ns + round(float(at_s) * 1e9),
                    None,
                    float(watts * width_s),
                    float(watts),
                    Flag.BY_MODEL,
                ),
            )
            for channel in self._filled
            for at_s, width_s, watts in zip(ends_s, widths_s, trace.watts[channel], strict=True)
        )

    def _resolvable(self, counted: dict[str, CounterEnergy], channels: dict[str, ChannelEnergy]) -> bool:
        in_total = [name for name, channel in channels.items() if channel.in_total]
        return bool(in_total) and all(counted[name].resolvable for name in in_total if name in counted)

    def _described(self) -> dict[str, dict[str, Any]]:
        described: dict[str, dict[str, Any]] = {
            name: {
                "component": channel.component,
                "in_total": channel.in_total,
                "unit_j": channel.unit_j,
                "wrap": channel.wrap,
                "period_s": channel.period_s,
                "device": channel.device,
                "integrated": channel.integrated,
                "scope": channel.scope,
                "quality": self._quality[name],
                "loop": self._sampler.loops[name],
            }
            for name, channel in self.channels.items()
        }
        for name in self._filled:
            described[_model_name(name)] = {
                "component": name,
                "in_total": True,
                "quality": self._activity_quality,
            }
        return described


def _model_name(channel: str) -> str:
    return f"model:{channel}"


def _activity_channel(energy: ActivityEnergy, quality: Quality) -> ChannelEnergy:
    return ChannelEnergy(
        energy.gross_j, energy.idle_j, energy.net_j, None, quality, in_total=True, complete=True
    )
