"""The area bound: least joules and seconds of tasks that may be cut and have no order.

A kind of task k comes N_k times, takes d_kr seconds and e_kr joules on a worker of class r, which has m_r workers.
Every schedule of whole tasks is one of the relaxation's, so its values bound them all from below. Energies are net of
idle: the watts that the whole machine takes however tasks are placed are ``static_w``.
Source: Beaumont et al., Concurrency and Computation 2016 (area bound); Tarplee et al., SCI 580 (energy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from schedulers.bounds.instance import ROUNDING, BoundError, Instance, check_counts, check_instance


@final
@dataclass(frozen=True)
class AreaBound:
    """``tasks[k, r]``: how many tasks of a kind a class takes; ``makespan_s``: how long the schedule takes."""

    energy_j: float
    makespan_s: float
    tasks: np.ndarray


def area_bound(
    counts: ArrayLike,
    length_s: ArrayLike,
    energy_j: ArrayLike,
    units: ArrayLike,
    *,
    static_w: float,
    deadline_s: float = math.inf,
    parking_w: ArrayLike | None = None,
    cap_w: float = math.inf,
) -> AreaBound:
    """Return the least joules in which the tasks can be done by the deadline, and where that puts them.

    Minimises ``sum e_kr n_kr + static_w * T`` subject to ``sum_r n_kr = N_k``, ``sum_k d_kr n_kr <= m_r T``,
    ``T <= deadline_s``, ``n >= 0``. T is free: a longer one allows cheaper placement, a shorter one saves static
    joules. Parking adds ``- sum_r parking_w_r (m_r T - sum_k d_kr n_kr)``, a cap
    ``sum e_kr n_kr + static_w T <= cap_w T``.

    Args:
        counts: (K,) tasks of each kind, above 0.
        length_s: (K, R) seconds of one task; NaN where the class cannot run the kind.
        energy_j: (K, R) joules of one task, net of idle; known wherever the length is.
        units: (R,) workers of each class, at least 1.
        static_w: watts of the whole machine while nothing runs and nobody is parked, 0 or more.
        deadline_s: the latest end.
        parking_w: (R,) watts that a parked worker of a class takes less than an idle one; None: nobody parks.
        cap_w: watts that the machine may take at any time.

    Raises BoundError where the deadline is before the least makespan, the cap cannot be kept or a kind has no class,
    and ValueError for figures that make no sense.
    """
    from scipy.optimize import linprog

    given = check_instance(length_s, energy_j, units, static_w=static_w, parking_w=parking_w, cap_w=cap_w)
    counts = check_counts(counts, len(given.length_s))
    area, equal, unit_s = area_rows(counts, given.length_s, given.runs)
    joules = given.energy_j * counts[:, None]
    objective = np.append(joules.ravel(), given.static_w * unit_s)
    scale = np.abs(objective).max() or 1.0
    below = np.hstack([area, -given.units[:, None]])
    if math.isfinite(cap_w):
        below = np.vstack([below, np.append(joules.ravel() / unit_s, given.static_w - cap_w) / cap_w])
    solved = linprog(
        objective / scale,
        A_ub=below,
        b_ub=np.zeros(len(below)),
        A_eq=np.hstack([equal, np.zeros((counts.size, 1))]),
        b_eq=np.ones(counts.size),
        bounds=[
            *((0.0, float(runs)) for runs in given.runs.ravel()),
            (0.0, deadline_s * (1 + ROUNDING) / unit_s),
        ],
        method="highs",
    )
    if solved.status == 2:
        raise _infeasible(counts, length_s, given, deadline_s)
    if solved.x is None:
        raise BoundError(f"the solver found no bound: {solved.message}")
    return _solution(solved, counts, given, joules, unit_s)


def least_makespan_s(counts: ArrayLike, length_s: ArrayLike, units: ArrayLike) -> float:
    """Return the seconds that no schedule beats; arguments as for ``area_bound``."""
    return area_bound(counts, length_s, np.zeros_like(length_s), units, static_w=1.0).energy_j


def area_rows(counts: Any, lengths: Any, runs: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (R, K*R) busy time, (K, K*R) sums of a kind's shares, and the unit of time in seconds.

    The variables are shares n_kr / N_k, and time is in units of all tasks on their fastest class, so that whatever
    the figures, the solver sees numbers near 1.
    """
    kinds, classes = lengths.shape
    unit_s = float((np.where(runs, lengths, np.inf).min(axis=1) * counts).sum())
    work = lengths * counts[:, None] / unit_s
    area = np.zeros((classes, kinds * classes))
    equal = np.zeros((kinds, kinds * classes))
    for k in range(kinds):
        for r in range(classes):
            area[r, k * classes + r] = work[k, r]
            equal[k, k * classes + r] = 1.0
    return area, equal, unit_s


def _infeasible(counts: Any, length_s: Any, given: Instance, deadline_s: float) -> BoundError:
    least_s = least_makespan_s(counts, length_s, given.units)
    if deadline_s * (1 + ROUNDING) < least_s:
        return BoundError(
            f"deadline_s={deadline_s:g} is before the least makespan of these tasks, {least_s:g} s"
        )
    if given.static_w >= given.cap_w:
        return BoundError(
            f"cap_w={given.cap_w:g} is not above the {given.static_w:g} W that flow when nothing runs"
        )
    return BoundError(
        f"the tasks cannot be done within deadline_s={deadline_s:g} under cap_w={given.cap_w:g}; raise one of them"
    )


def _solution(solved: Any, counts: Any, given: Instance, joules: np.ndarray, unit_s: float) -> AreaBound:
    shares = np.clip(solved.x[:-1].reshape(given.length_s.shape), 0.0, 1.0)
    tasks = shares * counts[:, None]
    makespan_s = float(((given.length_s * tasks).sum(axis=0) / given.units).max())
    if math.isfinite(given.cap_w):
        makespan_s = max(makespan_s, float(solved.x[-1]) * unit_s)
    return AreaBound(float((joules * shares).sum()) + given.static_w * makespan_s, makespan_s, tasks)
