"""A window of a run and its joules by channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from energy.activity import ActivityEnergy, PowerModel, TaskRecords, activity_energy
from energy.sampler import Snapshot
from energy.source import QUALITIES, Quality, weakest

if TYPE_CHECKING:
    from energy.session import EnergySession


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


@dataclass(frozen=True, slots=True)
class Activity:
    """The model's joules by its channels over a span of the tasks' clock."""

    start_s: float
    end_s: float
    energies: Mapping[str, ActivityEnergy]


@dataclass(slots=True)
class _Inside:
    """What the windows inside of one have counted of the workers' activity."""

    net_j: dict[str, float] = field(default_factory=dict)
    until_s: float = float("-inf")

    def add(self, model: PowerModel, tasks: TaskRecords, start_s: float, end_s: float) -> None:
        from_s = max(start_s, self.until_s)
        if from_s >= end_s:
            return
        for channel, energy in activity_energy(model, tasks, from_s, end_s).items():
            self.net_j[channel] = self.net_j.get(channel, 0.0) + energy.net_j
        self.until_s = end_s

    def energies(self, model: PowerModel, seconds: float) -> dict[str, ActivityEnergy]:
        """Outside of the windows inside nothing ran."""
        found = {}
        for channel, watts in model.idle_w.items():
            net_j = self.net_j.get(channel, 0.0)
            found[channel] = ActivityEnergy(watts * seconds + net_j, watts * seconds, net_j)
        return found


@final
class Window:
    """An open window; `stop` ends it and `close` counts."""

    def __init__(self, session: EnergySession, name: str, index: int, start: Snapshot) -> None:
        self.name = name
        self.index = index
        self._session = session
        self._start = start
        self._end: Snapshot | None = None
        self._activity: Activity | None = None
        self._inside = _Inside()
        self._energy: WindowEnergy | None = None

    @property
    def energy(self) -> WindowEnergy:
        """The result, once closed."""
        if self._energy is None:
            raise RuntimeError(f"window {self.name!r} is not closed yet")
        return self._energy

    def activity(self, tasks: TaskRecords, start_s: float, end_s: float) -> None:
        """What ran in this window, in the clock of the tasks; windows around it take it over."""
        self._activity = self._session.activity(tasks, start_s, end_s, self._start, self)

    def enclose(self, model: PowerModel, tasks: TaskRecords, start_s: float, end_s: float) -> None:
        """Take over what ran in a window inside this one; windows inside one another count once."""
        self._inside.add(model, tasks, start_s, end_s)

    def stop(self) -> None:
        """End the window now, before work (such as taking the trace) that is not to count."""
        if self._end is None:
            self._end = self._session.snapshot()

    def close(
        self, tasks: TaskRecords | None = None, start_s: float | None = None, end_s: float | None = None
    ) -> WindowEnergy:
        """End the window if it runs still, and count its joules.

        `tasks` (see `energy.activity.TaskRecords`) and the window in their clock are needed where the
        session's power model fills in for counters; `ValueError` says so. A window around others that were
        closed with theirs needs its span only: what ran is what ran in those.
        """
        self.stop()
        if (start_s is None or end_s is None) and (tasks is not None or start_s is not end_s):
            raise ValueError(f"window {self.name!r}: tasks need start_s and end_s, got {start_s} and {end_s}")
        if start_s is not None and end_s is not None:
            if tasks is not None:
                self.activity(tasks, start_s, end_s)
            elif self._session.power_model is not None:
                energies = self._inside.energies(self._session.power_model, end_s - start_s)
                self._activity = Activity(start_s, end_s, energies)
        if self._energy is None:
            assert self._end is not None
            self._session.leave(self)
            self._energy = self._session.count(self.name, self.index, self._start, self._end, self._activity)
        return self._energy


def sum_up(
    name: str,
    index: int,
    edges: tuple[Snapshot, Snapshot],
    seconds: float,
    channels: dict[str, ChannelEnergy],
    resolvable: bool,
) -> WindowEnergy:
    """A window's totals over the channels that are in the total."""
    parts = [channel for channel in channels.values() if channel.in_total]
    start, end = edges
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


def _sum_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
