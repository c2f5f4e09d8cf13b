"""Joules from what workers did and the watts that they are assumed to draw.

One accounting for real and simulated runs: a trace of tasks and a power model give joules and a power trace.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
TaskRecords = npt.NDArray[Any] | Mapping[str, Any]
"""Arrays of one length by name: `worker`, `start_s`, `end_s`, `codelet`. A structured array or a mapping.

A mapping may hold `transfers` besides: a `Transfers`.
"""

BASE = "base"
"""The channel of the watts that flow whatever the workers do."""
LINK = "link"
"""The channel of the joules that moving data between memories takes."""

DEFAULT_STAYS_AWAKE_S = 0.0002
"""As dahl/starpu/csrc/idle.c has it."""

_CHANNEL_OF_ARCH = {"cpu": "cpu", "cuda": "gpu"}
_CLOCK_ROUNDING_S = 1e-9


class ActivityError(ValueError):
    """The tasks cannot have run as the trace says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPower:
    """What one worker draws, in watts above the machine's base."""

    idle_w: float
    """Asleep."""
    busy_w: float
    """Running a task."""
    polling_w: float
    """Awake without a task, looking for one."""
    busy_w_by_codelet: Mapping[Hashable, float] = field(default_factory=dict)
    """In place of `busy_w` while running these codelets, named as the trace's `codelet` column does."""
    channel: str = "cpu"
    """Where its joules are counted: `cpu` or `gpu`."""
    parked_w: float | None = None
    """After `PowerModel.park_after_s` without a task; None: `idle_w`."""

    @property
    def asleep_w(self) -> float:
        """The least that it draws."""
        return self.idle_w if self.parked_w is None else self.parked_w

    def __post_init__(self) -> None:
        _check_watts("idle_w", self.idle_w, 0.0)
        if self.parked_w is not None:
            _check_watts("parked_w", self.parked_w, 0.0)
            _check_watts("idle_w", self.idle_w, self.parked_w, "parked_w")
        _check_watts("busy_w", self.busy_w, self.idle_w, "idle_w")
        _check_watts("polling_w", self.polling_w, self.idle_w, "idle_w")
        for codelet, watts in self.busy_w_by_codelet.items():
            _check_watts(f"busy_w_by_codelet[{codelet!r}]", watts, self.idle_w, "idle_w")
        if self.channel in (BASE, LINK):
            raise ValueError(f"channel {self.channel!r} is the machine's own, a worker needs another")


@dataclass(frozen=True, slots=True)
class Transfers:
    """What moving data took from `start_s` to `end_s`, spread evenly over it: when each piece moved is not known."""

    start_s: float
    end_s: float
    joules: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    """What a machine draws; `workers[i]` is the worker with id i."""

    base_w: float
    workers: tuple[WorkerPower, ...]
    stays_awake_s: float = DEFAULT_STAYS_AWAKE_S
    """For so long after the last task the lowest CPU worker polls before it sleeps too; infinite: it never does.

    StarPU's blocking drivers never let the last awake worker sleep, and dahl/starpu/csrc/idle.c does so after 0.2 ms.
    Where there is no CPU worker it is worker 0.
    """
    park_after_s: float = 0.0
    """For so long without a task a worker draws its `idle_w`, then its `parked_w`."""
    has_links: bool = False
    """Whether moving data takes joules of its own, in the channel `link`."""

    def __post_init__(self) -> None:
        _check_watts("base_w", self.base_w, 0.0)
        if not self.park_after_s >= 0:
            raise ValueError(f"park_after_s must be at least 0, got {self.park_after_s}")
        if not self.stays_awake_s >= 0:
            raise ValueError(f"stays_awake_s must be at least 0, got {self.stays_awake_s}")
        if not self.workers:
            raise ValueError("workers is empty: a power model needs at least one worker")

    @property
    def channels(self) -> tuple[str, ...]:
        """`base`, then the workers' channels in the order in which they appear, then `link` where there is one."""
        own = dict.fromkeys(worker.channel for worker in self.workers)
        return (BASE, *own, *((LINK,) if self.has_links else ()))

    @property
    def idle_w(self) -> dict[str, float]:
        """Watts per channel with every worker asleep."""
        watts = dict.fromkeys(self.channels, 0.0)
        watts[BASE] = self.base_w
        for worker in self.workers:
            watts[worker.channel] += worker.asleep_w
        return watts

    @property
    def awake_worker(self) -> int:
        """The worker that polls when all have become idle."""
        on_cpu = [index for index, worker in enumerate(self.workers) if worker.channel == "cpu"]
        return on_cpu[0] if on_cpu else 0


def power_model_for(watts: Mapping[str, Any], archs: Sequence[str]) -> PowerModel:
    """A power model from a configuration and every worker's architecture (`cpu`, `cuda`) in order of id.

    `watts` holds `base_w`, optionally `stays_awake_s`, and for each architecture a mapping with `idle_w`,
    `polling_w`, `busy_w` and optionally `busy_w_by_codelet`. Raises `ValueError` naming what is missing.
    """
    by_arch = {arch: _worker_power(watts, arch) for arch in dict.fromkeys(archs)}
    if "base_w" not in watts:
        raise ValueError(f"the energy model has no base_w, only {', '.join(map(str, watts))}")
    return PowerModel(
        base_w=watts["base_w"],
        workers=tuple(by_arch[arch] for arch in archs),
        stays_awake_s=float(watts.get("stays_awake_s", DEFAULT_STAYS_AWAKE_S)),
    )


def _worker_power(watts: Mapping[str, Any], arch: str) -> WorkerPower:
    if arch not in _CHANNEL_OF_ARCH:
        raise ValueError(f"no worker has the architecture {arch!r}; there are {', '.join(_CHANNEL_OF_ARCH)}")
    known = {"idle_w", "polling_w", "busy_w", "busy_w_by_codelet"}
    section = dict(watts.get(arch) or {})
    absent = sorted((known - {"busy_w_by_codelet"}) - section.keys())
    if absent:
        raise ValueError(f"the energy model lacks {', '.join(f'{arch}.{key}' for key in absent)}")
    if unknown := sorted(section.keys() - known):
        raise ValueError(f"the energy model has {arch}.{unknown[0]}; it can hold {', '.join(sorted(known))}")
    section["busy_w_by_codelet"] = dict(section.get("busy_w_by_codelet") or {})
    return WorkerPower(**section, channel=_CHANNEL_OF_ARCH[arch])


@dataclass(frozen=True, slots=True)
class ActivityEnergy:
    """Joules of one channel in a window."""

    gross_j: float
    idle_j: float
    """What it would have cost with every worker asleep: a worker that polls is a cost of the runtime."""
    net_j: float
    """`gross_j - idle_j`, never below 0."""


@dataclass(frozen=True, slots=True)
class PowerTrace:
    """Mean watts of each channel between two edges and the next."""

    edges_s: Floats
    """Bounds of the bins, bins + 1 of them."""
    watts: dict[str, Floats]
    """One value per bin."""

    def joules(self) -> dict[str, float]:
        """Each channel's integral."""
        widths_s = np.diff(self.edges_s)
        return {channel: float(values @ widths_s) for channel, values in self.watts.items()}


class _Spans(NamedTuple):
    """Stretches of time in which a channel draws more than it does asleep."""

    channel: npt.NDArray[np.intp]
    start_s: Floats
    end_s: Floats
    extra_w: Floats


def activity_energy(
    model: PowerModel, tasks: TaskRecords, start_s: float, end_s: float
) -> dict[str, ActivityEnergy]:
    """Joules per channel from `start_s` to `end_s`, in the clock of the tasks.

    Tasks that reach over the window's edges count with the part inside. Two that overlap on one worker, end
    before they start, or ran on a worker that the model does not have raise `ActivityError`.
    """
    spans = _spans(model, tasks, start_s, end_s)
    channels = model.channels
    net_j = np.bincount(spans.channel, spans.extra_w * (spans.end_s - spans.start_s), minlength=len(channels))
    idle_j = {channel: watts * (end_s - start_s) for channel, watts in model.idle_w.items()}
    return {
        channel: ActivityEnergy(idle_j[channel] + float(net), idle_j[channel], float(net))
        for channel, net in zip(channels, net_j, strict=True)
    }


def power_trace(
    model: PowerModel, tasks: TaskRecords, start_s: float, end_s: float, period_s: float
) -> PowerTrace:
    """Mean watts per channel in bins of `period_s` (the last may be shorter); their integral is exact."""
    if not (math.isfinite(period_s) and period_s > 0):
        raise ValueError(f"period_s must be more than 0, got {period_s}")
    spans = _spans(model, tasks, start_s, end_s)
    bins = max(0, math.ceil((end_s - start_s) / period_s - 1e-9))
    edges_s = start_s + period_s * np.arange(bins + 1, dtype=np.float64)
    edges_s[-1] = end_s
    widths_s = np.diff(edges_s)
    idle_w = model.idle_w
    watts = {}
    for index, channel in enumerate(model.channels):
        energy_j = _energy_until(edges_s, *(part[spans.channel == index] for part in spans[1:]))
        watts[channel] = idle_w[channel] + np.diff(energy_j) / widths_s
    return PowerTrace(edges_s, watts)


def _energy_until(times_s: Floats, start_s: Floats, end_s: Floats, extra_w: Floats) -> Floats:
    """Joules of the spans up to each of `times_s`: piecewise linear, bending where a span starts or ends."""
    if start_s.size == 0:
        return np.zeros_like(times_s)
    bends_s = np.concatenate([start_s, end_s])
    change_w = np.concatenate([extra_w, -extra_w])
    order = np.argsort(bends_s, kind="stable")
    bends_s = bends_s[order]
    power_w = np.cumsum(change_w[order])
    energy_j = np.concatenate([[0.0], np.cumsum(power_w[:-1] * np.diff(bends_s))])
    return np.interp(times_s, bends_s, energy_j)


def _spans(model: PowerModel, tasks: TaskRecords, start_s: float, end_s: float) -> _Spans:
    if not (math.isfinite(start_s) and math.isfinite(end_s) and start_s <= end_s):
        raise ValueError(f"a window needs start_s <= end_s, got {start_s} to {end_s}")
    worker, starts_s, ends_s, codelet = _checked(tasks, len(model.workers))
    starts_s, ends_s = np.clip(starts_s, start_s, end_s), np.clip(ends_s, start_s, end_s)
    inside = ends_s > starts_s
    worker, starts_s, ends_s = worker[inside], starts_s[inside], ends_s[inside]
    channels = {channel: index for index, channel in enumerate(model.channels)}
    channel_of = np.array([channels[power.channel] for power in model.workers], dtype=np.intp)
    extra_w = _extra_watts(model, worker, codelet[inside])
    spans = [_Spans(channel_of[worker], starts_s, ends_s, extra_w)]
    awake = model.workers[model.awake_worker]
    polling_w = awake.polling_w - awake.idle_w
    if model.stays_awake_s > 0 and polling_w > 0:
        from_s, to_s = _polling(model, starts_s, ends_s, start_s, end_s)
        spans.append(_span(channels[awake.channel], from_s, to_s, polling_w))
    for index, power in enumerate(model.workers):
        if power.asleep_w < power.idle_w and model.park_after_s > 0:
            own = worker == index
            from_s, to_s = _all_idle(starts_s[own], ends_s[own], start_s, end_s)
            to_s = np.minimum(to_s, from_s + model.park_after_s)
            spans.append(_span(channel_of[index], from_s, to_s, power.idle_w - power.asleep_w))
    if model.has_links:
        spans.append(_transfers(channels[LINK], tasks, start_s, end_s))
    return _Spans(*(np.concatenate(parts) for parts in zip(*spans, strict=True)))


def _span(channel: int | np.intp, from_s: Floats, to_s: Floats, extra_w: float) -> _Spans:
    return _Spans(np.full(from_s.size, channel, dtype=np.intp), from_s, to_s, np.full(from_s.size, extra_w))


def _transfers(channel: int, tasks: TaskRecords, start_s: float, end_s: float) -> _Spans:
    moved = tasks.get("transfers") if isinstance(tasks, Mapping) else None
    if moved is None or moved.end_s <= moved.start_s:
        return _span(channel, np.empty(0), np.empty(0), 0.0)
    from_s, to_s = np.clip([moved.start_s, moved.end_s], start_s, end_s)
    watts = moved.joules / (moved.end_s - moved.start_s)
    return _span(channel, np.array([from_s]), np.array([to_s]), watts)


def awake_idle_j(model: PowerModel, tasks: TaskRecords, start_s: float, end_s: float) -> float:
    """What workers without a task draw above their parked watts until they park, in joules."""
    worker, starts_s, ends_s, _ = _checked(tasks, len(model.workers))
    starts_s, ends_s = np.clip(starts_s, start_s, end_s), np.clip(ends_s, start_s, end_s)
    joules = 0.0
    for index, power in enumerate(model.workers):
        own = (worker == index) & (ends_s > starts_s)
        from_s, to_s = _all_idle(starts_s[own], ends_s[own], start_s, end_s)
        awake_s = np.minimum(to_s - from_s, model.park_after_s).sum()
        joules += float(awake_s) * (power.idle_w - power.asleep_w)
    return joules


def polling_spans(
    model: PowerModel, tasks: TaskRecords, start_s: float, end_s: float
) -> tuple[Floats, Floats]:
    """Starts and ends of the stretches in which a worker is awake without a task."""
    _, starts_s, ends_s, _ = _checked(tasks, len(model.workers))
    starts_s, ends_s = np.clip(starts_s, start_s, end_s), np.clip(ends_s, start_s, end_s)
    inside = ends_s > starts_s
    return _polling(model, starts_s[inside], ends_s[inside], start_s, end_s)


def _polling(
    model: PowerModel, starts_s: Floats, ends_s: Floats, start_s: float, end_s: float
) -> tuple[Floats, Floats]:
    from_s, to_s = _all_idle(starts_s, ends_s, start_s, end_s)
    to_s = np.minimum(to_s, from_s + model.stays_awake_s)
    return from_s[to_s > from_s], to_s[to_s > from_s]


def _checked(
    tasks: TaskRecords, workers: int
) -> tuple[npt.NDArray[np.intp], Floats, Floats, npt.NDArray[Any]]:
    """The columns of tasks that take time, sorted by start; `ActivityError` for what cannot have happened."""
    worker = np.asarray(tasks["worker"]).astype(np.intp)
    start_s = np.asarray(tasks["start_s"], dtype=np.float64)
    end_s = np.asarray(tasks["end_s"], dtype=np.float64)
    codelet = np.asarray(tasks["codelet"])
    wrong = ~(end_s >= start_s) | ~np.isfinite(start_s) | ~np.isfinite(end_s)
    if wrong.any():
        task = int(np.argmax(wrong))
        raise ActivityError(f"task {task} runs from {start_s[task]} s to {end_s[task]} s")
    unknown = (worker < 0) | (worker >= workers)
    if unknown.any():
        task = int(np.argmax(unknown))
        raise ActivityError(f"task {task} ran on worker {worker[task]}, the power model has {workers}")
    order = np.argsort(start_s, kind="stable")
    # Tasks of no length cost nothing, and have no order among those that start with them.
    order = order[(end_s > start_s)[order]]
    worker, start_s, end_s = worker[order], start_s[order], end_s[order]
    _check_overlap(worker, start_s, end_s)
    return worker, start_s, end_s, codelet[order]


def _check_overlap(worker: npt.NDArray[np.intp], start_s: Floats, end_s: Floats) -> None:
    by_worker = np.argsort(worker.astype(np.int16), kind="stable")
    worker, start_s, end_s = worker[by_worker], start_s[by_worker], end_s[by_worker]
    overlap_s = end_s[:-1] - start_s[1:]
    # Times that come from a clock in nanoseconds may be off by one when they meet.
    bad = (worker[:-1] == worker[1:]) & (overlap_s > _CLOCK_ROUNDING_S)
    if bad.any():
        at = int(np.argmax(bad))
        raise ActivityError(
            f"worker {worker[at]} runs two tasks at once: "
            f"one until {end_s[at]} s, the next from {start_s[at + 1]} s"
        )


def _extra_watts(model: PowerModel, worker: npt.NDArray[np.intp], codelet: npt.NDArray[Any]) -> Floats:
    extra_w = np.array([power.busy_w - power.asleep_w for power in model.workers])[worker]
    for name in {name for power in model.workers for name in power.busy_w_by_codelet}:
        watts = np.array(
            [power.busy_w_by_codelet.get(name, power.busy_w) - power.asleep_w for power in model.workers]
        )
        if codelet.size and isinstance(name, str) != (codelet.dtype.kind in "OTU"):
            raise ActivityError(f"busy_w_by_codelet names {name!r}, the trace's codelets are {codelet.dtype}")
        ran = codelet == name
        extra_w[ran] = watts[worker[ran]]
    return extra_w


def _all_idle(starts_s: Floats, ends_s: Floats, start_s: float, end_s: float) -> tuple[Floats, Floats]:
    """The stretches of the window in which no span runs; `starts_s` is sorted."""
    from_s = np.concatenate([[start_s], np.maximum.accumulate(ends_s)])
    to_s = np.concatenate([starts_s, [end_s]])
    idle = to_s > from_s
    return from_s[idle], to_s[idle]


def _check_watts(name: str, watts: float, least: float, least_name: str = "") -> None:
    if not math.isfinite(watts):
        raise ValueError(f"{name} must be a finite number of watts, got {watts}")
    if watts < least:
        floor = f"{least_name} ({least})" if least_name else f"{least}"
        raise ValueError(f"{name} must be at least {floor} watts, got {watts}")
