"""Energy of windows of a run: from counters, and from worker activity where there are none."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, final

from energy.activity import BASE, ActivityEnergy, PowerModel, TaskRecords, activity_energy, power_trace
from energy.counters import PERIODS_TO_RESOLVE, CounterEnergy, Flag, Step, energy_between
from energy.live import LivePage
from energy.process_sampler import ProcessSampler
from energy.sampler import DEFAULT_RATE, LivePower, RateHz, Sampler, Snapshot, check_rates
from energy.source import QUALITIES, Channel, Quality, Source, weakest
from energy.stream import PowerStream
from energy.thread_sampler import ThreadSampler

_COVERED_BY = {"package": {BASE, "cpu"}, "gpu": {"gpu"}}


@dataclass(frozen=True, slots=True)
class ChannelEnergy:
    """One channel's joules in a window."""

    gross_j: float | None
    """None where a reading is missing."""
    idle_j: float | None
    """What the idle baseline would have cost; None without a baseline."""
    net_j: float | None
    """`gross_j - idle_j`; None where either is."""
    bound_j: float | None
    """Largest error of `gross_j`; None where it is not known (assumed watts)."""
    quality: Quality
    in_total: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class WindowEnergy:
    """The joules of one window."""

    name: str
    index: int
    start_t_ns: int
    end_t_ns: int
    seconds: float
    """By the host's clock where a counter was read, else by the clock of the tasks."""
    channels: dict[str, ChannelEnergy]
    total_j: float | None
    """Sum of the channels that are in the total; None where one of them is not complete, or there is none."""
    total_net_j: float | None
    total_bound_j: float | None
    quality: Quality | None
    """The weakest of the total's parts."""
    resolvable: bool
    """False if the window is shorter than three periods of a counter in the total, or has no total."""

    @property
    def qualities(self) -> tuple[Quality, ...]:
        """All qualities that the total mixes, strongest first."""
        found = {channel.quality for channel in self.channels.values() if channel.in_total}
        return tuple(quality for quality in QUALITIES if quality in found)


@final
class Window:
    """An open window; `stop` ends it and `close` counts."""

    def __init__(self, session: EnergySession, name: str, index: int, start: Snapshot) -> None:
        self.name = name
        self.index = index
        self._session = session
        self._start = start
        self._end: Snapshot | None = None
        self._activity: tuple[TaskRecords, float, float] | None = None
        self._energy: WindowEnergy | None = None

    @property
    def energy(self) -> WindowEnergy:
        """The result, once closed."""
        if self._energy is None:
            raise RuntimeError(f"window {self.name!r} is not closed yet")
        return self._energy

    def activity(self, tasks: TaskRecords, start_s: float, end_s: float) -> None:
        """What ran in this window, in the clock of the tasks."""
        self._activity = (tasks, start_s, end_s)

    def stop(self) -> None:
        """End the window now, before work (such as taking the trace) that is not to count."""
        if self._end is None:
            self._end = self._session.snapshot()

    def close(
        self, tasks: TaskRecords | None = None, start_s: float | None = None, end_s: float | None = None
    ) -> WindowEnergy:
        """End the window if it runs still, and count its joules.

        `tasks` (see `energy.activity.TaskRecords`) and the window in their clock are needed where the
        session's power model fills in for counters; `ValueError` says so.
        """
        self.stop()
        if tasks is not None:
            if start_s is None or end_s is None:
                raise ValueError(
                    f"window {self.name!r}: tasks need start_s and end_s, got {start_s} and {end_s}"
                )
            self.activity(tasks, start_s, end_s)
        if self._energy is None:
            assert self._end is not None
            self._energy = self._session.count(self.name, self.index, self._start, self._end, self._activity)
        return self._energy


@final
class EnergySession:
    """Counts the joules of windows.

    `sources` are opened and sampled at `rate_hz` (of all, or by the source's name with a `default`) by a process
    of its own, or by a thread where a source can be read in this process only; every reading goes to `stream`, live
    watts to `page`.
    `power_model` fills in only for components that no counter covers: a package counter covers the model's
    `base` and `cpu`, a gpu counter its `gpu`. Its joules carry `activity_quality`.
    `idle_w` is a baseline in watts by channel, measured earlier; `measure_idle` replaces it.

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
    def trouble(self) -> str | None:
        """What has gone wrong with the counters so far, in one line; None for nothing."""
        return self._sampler.trouble

    @property
    def idle_w(self) -> dict[str, float]:
        """The idle baseline in watts by channel of a counter."""
        return dict(self._idle_w)

    def measure_idle(self, seconds: float) -> dict[str, float]:
        """Watts by channel over `seconds` in which the caller lets nothing run; taken as the idle baseline.

        Empty, at once, without counters. A channel with a missing reading gets none.
        `ValueError` where `seconds` is too short for a counter.
        """
        if not self.channels:
            return {}
        longest_s = max(channel.period_s for channel in self.channels.values())
        if not seconds >= PERIODS_TO_RESOLVE * longest_s or seconds <= 0:
            raise ValueError(
                f"an idle baseline of {seconds} s is too short, it needs {PERIODS_TO_RESOLVE * longest_s:g} s"
            )
        start = self.snapshot()
        time.sleep(seconds)
        energies = self._counted(start, self.snapshot())
        self._idle_w = {
            name: energy.joules / energy.seconds
            for name, energy in energies.items()
            if energy.joules is not None
        }
        return self.idle_w

    def live(self) -> dict[str, LivePower]:
        """Power by counter over about the last second."""
        return self._sampler.live()

    def open_window(self, name: str, index: int = 0) -> Window:
        """Start a window; windows may nest and overlap."""
        return Window(self, name, index, self.snapshot())

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

    def count(
        self,
        name: str,
        index: int,
        start: Snapshot,
        end: Snapshot,
        activity: tuple[TaskRecords, float, float] | None,
    ) -> WindowEnergy:
        """The joules between two snapshots."""
        counted = self._counted(start, end)
        channels = {channel: self._counter_channel(channel, energy) for channel, energy in counted.items()}
        seconds = (end.t_ns - start.t_ns) * 1e-9
        if self._filled:
            if activity is None:
                raise ValueError(
                    f"window {name!r}: {', '.join(self._filled)} have no counter, so the power model "
                    "needs close(tasks=..., start_s=..., end_s=...)"
                )
            channels |= self._activity_channels(activity, start)
        if activity is not None and not counted:
            seconds = activity[2] - activity[1]
        return _sum_up(name, index, start, end, seconds, channels, self._resolvable(counted, channels))

    def _counted(self, start: Snapshot, end: Snapshot) -> dict[str, CounterEnergy]:
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

    def _activity_channels(
        self, activity: tuple[TaskRecords, float, float], start: Snapshot
    ) -> dict[str, ChannelEnergy]:
        assert self._model is not None
        energies = activity_energy(self._model, *activity)
        self._record_activity(activity, start)
        return {
            _model_name(name): _activity_channel(energies[name], self._activity_quality)
            for name in self._filled
        }

    def _record_activity(self, activity: tuple[TaskRecords, float, float], start: Snapshot) -> None:
        """Add the power trace of what the stream does not hold yet: a window may lie inside another."""
        tasks, start_s, end_s = activity
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
                "quality": self._quality[name],
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


def _sum_up(
    name: str,
    index: int,
    start: Snapshot,
    end: Snapshot,
    seconds: float,
    channels: dict[str, ChannelEnergy],
    resolvable: bool,
) -> WindowEnergy:
    parts = [channel for channel in channels.values() if channel.in_total]
    return WindowEnergy(
        name=name,
        index=index,
        start_t_ns=start.t_ns,
        end_t_ns=end.t_ns,
        seconds=seconds,
        channels=channels,
        total_j=_sum_or_none([part.gross_j for part in parts]),
        total_net_j=_sum_or_none([part.net_j for part in parts]),
        total_bound_j=_sum_or_none([part.bound_j for part in parts]),
        quality=weakest(part.quality for part in parts),
        resolvable=resolvable,
    )


def _sum_or_none(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
