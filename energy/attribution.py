"""Which classes of tasks the joules of a meter went to: watts by codelet and worker class. Modelled.

For each meter m and interval k: E_mk = P_idle,m dt_k + sum over classes c of p_mc busy_kc, with p_mc >= 0 by
non-negative least squares and P_idle from the idle baseline (Risse, Guermouche, Trahay, CLUSTER 2025,
doi 10.1109/CLUSTER59342.2025.11186478). Classes that never run apart cannot be told from one another: they are merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from energy.activity import Floats, TaskRecords
from energy.source import Quality

TaskClass = tuple[str, str]
"""A codelet and the worker class that it ran on."""

COLLINEAR = 0.05
"""A class of whose busy times the others explain all but this share is no class of its own."""

BLOCK_INTERVALS = 10
"""Intervals that a bootstrap draws together: what one misses at its edge its neighbour has."""


class AttributionError(ValueError):
    """The records do not allow an attribution; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class MeterRecords:
    """One meter's joules by interval, in the clock of the tasks."""

    channel: str
    start_s: Floats
    end_s: Floats
    joules: Floats
    """NaN, and so left out, where a reading is missing."""


@dataclass(frozen=True, slots=True)
class ClassPower:
    """What one class of tasks draws above idle, per busy worker."""

    classes: tuple[TaskClass, ...]
    """More than one where they never run apart: then the watts are those of their mixture."""
    watts: float
    low_w: float
    high_w: float
    """Bootstrap interval of 95 %."""
    busy_s: float
    joules: float

    @property
    def merged(self) -> bool:
        """Whether these classes could not be told apart."""
        return len(self.classes) > 1


@dataclass(frozen=True, slots=True)
class Attribution:
    """One meter's joules by class of tasks."""

    quality: ClassVar[Quality] = "modelled"
    channel: str
    idle_w: float
    classes: tuple[ClassPower, ...]
    total_j: float
    """What the meter counted over the intervals, idle included."""
    residual_rms_j: float
    """Root mean square of what is left over in an interval."""
    residual_share: float
    """Joules of the whole that no class explains, over those above idle; 0 where nothing was above idle."""
    condition: float
    """Of the busy times, each class scaled to length 1, after merging; 1 where no two classes run together."""
    rank: int
    """Classes that can be told apart, before merging."""
    intervals: int

    def watts_of(self, codelet: str, worker_class: str) -> float:
        """Watts above idle while a worker runs a codelet; NaN where it never ran."""
        for power in self.classes:
            if (codelet, worker_class) in power.classes:
                return power.watts
        return float("nan")


def attribute(
    meter: MeterRecords,
    tasks: TaskRecords,
    worker_classes: Sequence[str],
    idle_w: float,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> Attribution:
    """Fit the watts of each class of tasks to a meter's joules.

    `tasks` has columns `worker`, `codelet`, `start_s` and `end_s`; `worker_classes[w]` is the class of worker w.
    `idle_w` is what the meter shows while nothing runs. Raises AttributionError where fewer intervals are known
    than there are classes.
    """
    known = np.isfinite(meter.joules) & (meter.end_s > meter.start_s)
    start_s, end_s = meter.start_s[known], meter.end_s[known]
    names, busy_s = busy_times(tasks, worker_classes, start_s, end_s)
    net_j = meter.joules[known] - idle_w * (end_s - start_s)
    if len(net_j) < max(1, len(names)):
        raise AttributionError(
            f"{meter.channel}: {len(net_j)} intervals are known, {len(names)} classes of tasks need at least as many"
        )
    groups, rank = merge_collinear(busy_s)
    merged_s = _merged(busy_s, groups)
    watts = _fit(merged_s.T @ merged_s, merged_s.T @ net_j)
    low_w, high_w = _bootstrap(merged_s, net_j, resamples, seed)
    rest_j = net_j - merged_s @ watts
    above_j = float(np.abs(net_j.sum()))
    powers = [
        ClassPower(
            tuple(names[at] for at in group),
            float(watts[i]),
            float(low_w[i]),
            float(high_w[i]),
            float(merged_s[:, i].sum()),
            float(watts[i] * merged_s[:, i].sum()),
        )
        for i, group in enumerate(groups)
    ]
    return Attribution(
        channel=meter.channel,
        idle_w=idle_w,
        classes=tuple(powers),
        total_j=float(meter.joules[known].sum()),
        residual_rms_j=float(np.sqrt(np.mean(rest_j**2))),
        residual_share=float(abs(rest_j.sum()) / above_j) if above_j else 0.0,
        condition=_condition(merged_s),
        rank=rank,
        intervals=len(net_j),
    )


def busy_share(
    meter: MeterRecords, tasks: TaskRecords, worker_classes: Sequence[str], idle_w: float
) -> dict[TaskClass, float]:
    """The simple alternative: each interval's joules above idle, shared out by the seconds that each class was busy.

    All classes that run at once then draw the same watts. Joules of intervals without a task go to no class.
    """
    known = np.isfinite(meter.joules) & (meter.end_s > meter.start_s)
    start_s, end_s = meter.start_s[known], meter.end_s[known]
    names, busy_s = busy_times(tasks, worker_classes, start_s, end_s)
    net_j = meter.joules[known] - idle_w * (end_s - start_s)
    whole_s = busy_s.sum(axis=1)
    ran = whole_s > 0
    joules = (busy_s[ran] / whole_s[ran, None] * net_j[ran, None]).sum(axis=0)
    return dict(zip(names, joules.tolist(), strict=True))


def busy_times(
    tasks: TaskRecords, worker_classes: Sequence[str], start_s: Floats, end_s: Floats
) -> tuple[list[TaskClass], Floats]:
    """The classes that ran, and by interval and class the seconds that workers were busy with them."""
    codelets = np.asarray(tasks["codelet"]).astype(str)
    classes = np.asarray(worker_classes, dtype=str)[np.asarray(tasks["worker"]).astype(np.intp)]
    task_start_s = np.asarray(tasks["start_s"], dtype=np.float64)
    task_end_s = np.asarray(tasks["end_s"], dtype=np.float64)
    names = sorted(set(zip(codelets.tolist(), classes.tolist(), strict=True)))
    columns = []
    for codelet, worker_class in names:
        own = (codelets == codelet) & (classes == worker_class)
        until_s = _busy_until(task_start_s[own], task_end_s[own])
        columns.append(until_s(end_s) - until_s(start_s))
    found = np.column_stack(columns) if columns else np.zeros((start_s.size, 0))
    ran = found.sum(axis=0) > 0
    return [name for name, kept in zip(names, ran, strict=True) if kept], found[:, ran]


def merge_collinear(busy_s: Floats, collinear: float = COLLINEAR) -> tuple[list[list[int]], int]:
    """Groups of columns that cannot be told apart, and how many could before merging.

    While all but `collinear` of some column is a combination of the others, it joins the one that it is most like.
    """
    groups = [[index] for index in range(busy_s.shape[1])]
    scaled = busy_s / np.linalg.norm(busy_s, axis=0)
    rank = int(np.linalg.matrix_rank(scaled, tol=collinear)) if groups else 0
    while len(groups) > 1:
        merged = _merged(busy_s, groups)
        merged = merged / np.linalg.norm(merged, axis=0)
        likeness = merged.T @ merged
        own_share = _own_shares(likeness)
        least = int(np.argmin(own_share))
        if own_share[least] > collinear:
            break
        np.fill_diagonal(likeness, -1.0)
        other = int(np.argmax(likeness[least]))
        first, second = sorted((least, other))
        groups[first] = sorted(groups[first] + groups.pop(second))
    return groups, rank


def _own_shares(likeness: Floats) -> Floats:
    """For each of some unit vectors the length of the part that no combination of the others gives."""
    values, vectors = np.linalg.eigh(likeness)
    inverse_diagonal = ((vectors**2) / np.maximum(values, 1e-15)).sum(axis=1)
    return np.sqrt(1.0 / inverse_diagonal)


def _busy_until(start_s: Floats, end_s: Floats) -> Any:
    """Busy seconds up to a time, as a function: piecewise linear, bending where a task starts or ends."""
    bends_s = np.concatenate([start_s, end_s])
    order = np.argsort(bends_s, kind="stable")
    running = np.cumsum(np.concatenate([np.ones_like(start_s), -np.ones_like(end_s)])[order])
    bends_s = bends_s[order]
    total_s = np.concatenate([[0.0], np.cumsum(running[:-1] * np.diff(bends_s))])
    return lambda times_s: np.interp(times_s, bends_s, total_s)


def _merged(busy_s: Floats, groups: Sequence[Sequence[int]]) -> Floats:
    if not groups:
        return busy_s
    return np.column_stack([busy_s[:, list(group)].sum(axis=1) for group in groups])


def _fit(gram: Floats, target: Floats) -> Floats:
    """Non-negative least squares from the normal equations' sides, A'A and A'y."""
    from scipy.optimize import nnls

    if not target.size:
        return np.zeros(0)
    values, vectors = np.linalg.eigh(gram)
    kept = values > values[-1] * 1e-12
    root = np.sqrt(values[kept])
    solution: Floats = nnls(root[:, None] * vectors[:, kept].T, (vectors[:, kept].T @ target) / root)[0]
    return solution


def _bootstrap(
    busy_s: Floats, net_j: Floats, resamples: int, seed: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Bounds of the middle 95 % of fits to blocks of intervals drawn with replacement."""
    count = busy_s.shape[1]
    edges = np.arange(0, len(net_j), BLOCK_INTERVALS)
    blocks = [slice(at, at + BLOCK_INTERVALS) for at in edges]
    grams = np.array([busy_s[block].T @ busy_s[block] for block in blocks]).reshape(-1, count, count)
    targets = np.array([busy_s[block].T @ net_j[block] for block in blocks]).reshape(-1, count)
    draw = np.random.default_rng(seed)
    fits = []
    for _ in range(resamples):
        times = np.bincount(draw.integers(0, len(blocks), len(blocks)), minlength=len(blocks))
        gram = np.tensordot(times, grams, axes=1)
        if count and gram.any():
            fit = _fit(gram, times @ targets)
            fits.append(np.where(np.diag(gram) > 0, fit, np.nan))  # a class that was not drawn says nothing
    if not fits:
        return np.full(count, np.nan), np.full(count, np.nan)
    low, high = np.nanpercentile(np.array(fits), [2.5, 97.5], axis=0)
    return low, high


def _condition(busy_s: Floats) -> float:
    if not busy_s.shape[1]:
        return 1.0
    return float(np.linalg.cond(busy_s / np.linalg.norm(busy_s, axis=0)))


def meter_records(frame: Any, channel: str, offset_ns: int = 0) -> MeterRecords:
    """One channel of a power stream (`energy.read_stream`) as intervals on another clock.

    `offset_ns` is the stream's clock minus the tasks', such as `start_t_mono_ns - 1e9 start_s` of a window.
    """
    own = frame[frame["channel"] == channel]
    at_s = (own["t_mono_ns"].to_numpy(np.int64) - offset_ns) * 1e-9
    joules = own["joules"].to_numpy(np.float64)
    return MeterRecords(channel, at_s[:-1], at_s[1:], joules[1:])


def class_watts(attributions: Sequence[Attribution]) -> Mapping[TaskClass, float]:
    """Watts of each class summed over the meters, such as package and dram."""
    names = {name for found in attributions for power in found.classes for name in power.classes}
    return {
        name: float(np.nansum([found.watts_of(*name) for found in attributions])) for name in sorted(names)
    }
