"""Least energy and least watts that no schedule beats, by linear programming (SciPy's HiGHS).

The area relaxation: a kind of task k comes N_k times, takes d_kr seconds and e_kr joules on a worker of class r, which
has m_r workers. Tasks may be cut and have no order, so the values bound every schedule from below. Energies are net of
idle: the watts that the whole machine takes however tasks are placed are ``static_w``.
Source: Beaumont et al., Concurrency and Computation 2016 (area bound); Tarplee et al., SCI 580 (energy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

ROUNDING = 1e-6
"""By how much, relatively, a solver's answer may overstep a deadline."""


class BoundError(ValueError):
    """There is no schedule of this kind; the message says which figure rules it out."""


@final
@dataclass(frozen=True)
class AreaBound:
    """``tasks[k, r]``: how many tasks of a kind a class takes; ``makespan_s``: the busiest class's time."""

    energy_j: float
    makespan_s: float
    tasks: np.ndarray


@final
@dataclass(frozen=True)
class ActiveSet:
    """``active[r]``: how many workers of a class have to be active; ``watts``: what they take when busy."""

    watts: float
    active: np.ndarray


def area_bound(
    counts: ArrayLike,
    length_s: ArrayLike,
    energy_j: ArrayLike,
    units: ArrayLike,
    *,
    static_w: float,
    deadline_s: float = math.inf,
) -> AreaBound:
    """Return the least joules in which the tasks can be done by the deadline, and where that puts them.

    Minimises ``sum e_kr n_kr + static_w * T`` subject to ``sum_r n_kr = N_k``, ``sum_k d_kr n_kr <= m_r T``,
    ``T <= deadline_s``, ``n >= 0``. T is free: a longer one allows cheaper placement, a shorter one saves static
    joules.

    Args:
        counts: (K,) tasks of each kind, above 0.
        length_s: (K, R) seconds of one task; NaN where the class cannot run the kind.
        energy_j: (K, R) joules of one task, net of idle; known wherever the length is.
        units: (R,) workers of each class, at least 1.
        static_w: watts of the whole machine while nothing runs, 0 or more.
        deadline_s: the latest end.

    Raises BoundError where the deadline is before the least makespan or a kind has no class, and ValueError for
    figures that make no sense.
    """
    from scipy.optimize import linprog

    counts, lengths, units = _checked(counts, length_s, units)
    energies = np.asarray(energy_j, float)
    if energies.shape != lengths.shape or np.isnan(energies[~np.isnan(lengths)]).any():
        raise ValueError("energy_j must be known wherever length_s is")
    if not (static_w >= 0 and math.isfinite(static_w)):
        raise ValueError(f"static_w must be 0 or more, got {static_w}")
    area, equal, upper, unit_s = _constraints(counts, lengths)
    joules = np.where(np.isnan(lengths), 0.0, energies) * counts[:, None]
    objective = np.append(joules.ravel(), static_w * unit_s)
    scale = np.abs(objective).max() or 1.0
    solved = linprog(
        objective / scale,
        A_ub=np.hstack([area, -units[:, None]]),
        b_ub=np.zeros(units.size),
        A_eq=np.hstack([equal, np.zeros((counts.size, 1))]),
        b_eq=np.ones(counts.size),
        bounds=[*((0.0, high) for high in upper), (0.0, deadline_s * (1 + ROUNDING) / unit_s)],
        method="highs",
    )
    if solved.status == 2:
        raise _too_early(deadline_s, counts, lengths, units)
    return _solution(solved, counts, lengths, joules, units, static_w)


def least_makespan_s(counts: ArrayLike, length_s: ArrayLike, units: ArrayLike) -> float:
    """Return the seconds that no schedule beats; arguments as for ``area_bound``."""
    return area_bound(counts, length_s, np.zeros_like(length_s), units, static_w=1.0).energy_j


def fewest_watts(
    counts: ArrayLike, length_s: ArrayLike, units: ArrayLike, busy_w: ArrayLike, *, deadline_s: float
) -> ActiveSet:
    """Return the active workers of the least total busy watts that can do the tasks by the deadline.

    Minimises ``sum_r busy_w_r a_r`` over integers ``a_r <= m_r`` subject to ``sum_r n_kr = N_k``,
    ``sum_k d_kr n_kr <= a_r * deadline_s``, ``n >= 0``: a mixed-integer program. ``busy_w`` is (R,), above 0; other
    arguments and errors as for ``area_bound``.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    counts, lengths, units = _checked(counts, length_s, units)
    watts = np.asarray(busy_w, float)
    if watts.shape != units.shape or not (watts > 0).all():
        raise ValueError(f"busy_w must be above 0 for each worker class, got {watts.tolist()}")
    area, equal, upper, unit_s = _constraints(counts, lengths)
    latest = deadline_s * (1 + ROUNDING) / unit_s
    solved: Any = milp(
        np.append(np.zeros(upper.size), watts / watts.max()),
        integrality=np.append(np.zeros(upper.size), np.ones(units.size)),
        bounds=Bounds(np.zeros(upper.size + units.size), np.append(upper, units)),
        constraints=[
            LinearConstraint(np.hstack([area / latest, -np.eye(units.size)]), -np.inf, 0.0),
            LinearConstraint(np.hstack([equal, np.zeros((counts.size, units.size))]), 1.0, 1.0),
        ],
    )
    if solved.status == 2:
        raise _too_early(deadline_s, counts, lengths, units)
    if solved.x is None:
        raise BoundError(f"the solver found no set of active workers: {solved.message}")
    active = np.rint(solved.x[upper.size :]).astype(int)
    return ActiveSet(float(watts @ active), active)


def _too_early(deadline_s: float, counts: Any, lengths: Any, units: Any) -> BoundError:
    least_s = least_makespan_s(counts, lengths, units)
    return BoundError(f"deadline_s={deadline_s:g} is before the least makespan of these tasks, {least_s:g} s")


def _checked(counts: ArrayLike, length_s: ArrayLike, units: ArrayLike) -> tuple[np.ndarray, ...]:
    counts, lengths, units = (np.asarray(given, float) for given in (counts, length_s, units))
    if lengths.shape != (counts.size, units.size) or counts.size == 0 or units.size == 0:
        raise ValueError(f"length_s has the shape {lengths.shape}, expected ({counts.size}, {units.size})")
    if not (counts > 0).all():
        raise ValueError(f"counts must be above 0, got {counts.tolist()}")
    if not (units >= 1).all():
        raise ValueError(f"units must be 1 or more, got {units.tolist()}")
    if (lengths <= 0).any() or np.isinf(lengths).any():
        raise ValueError("length_s must be above 0 and finite, or NaN where a class cannot run a kind")
    nowhere = np.isnan(lengths).all(axis=1)
    if nowhere.any():
        raise BoundError(f"no worker class can run kind {int(nowhere.argmax())} of the tasks")
    return counts, lengths, units


def _constraints(counts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return (R, K*R) busy time, (K, K*R) shares of a kind, (K*R) largest shares, and the unit of time in seconds.

    The variables are shares n_kr / N_k, and time is in units of all tasks on their fastest class, so that whatever
    the figures, the solver sees numbers near 1.
    """
    kinds, classes = lengths.shape
    runs = ~np.isnan(lengths)
    work_s = np.where(runs, lengths, 0.0) * counts[:, None]
    unit_s = float((np.nanmin(lengths, axis=1) * counts).sum())
    area = np.zeros((classes, kinds * classes))
    equal = np.zeros((kinds, kinds * classes))
    for k in range(kinds):
        for r in range(classes):
            area[r, k * classes + r] = work_s[k, r] / unit_s
            equal[k, k * classes + r] = 1.0
    return area, equal, runs.ravel().astype(float), unit_s


def _solution(
    solved: Any,
    counts: np.ndarray,
    lengths: np.ndarray,
    joules: np.ndarray,
    units: np.ndarray,
    static_w: float,
) -> AreaBound:
    if solved.x is None:
        raise BoundError(f"the solver found no bound: {solved.message}")
    shares = np.clip(solved.x[:-1].reshape(lengths.shape), 0.0, 1.0)
    tasks = shares * counts[:, None]
    makespan_s = float((np.nansum(lengths * tasks, axis=0) / units).max())
    return AreaBound(float((joules * shares).sum()) + static_w * makespan_s, makespan_s, tasks)
