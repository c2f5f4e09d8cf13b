"""The active workers of the fewest watts that can do the tasks in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from schedulers.bounds.area import area_rows, least_makespan_s
from schedulers.bounds.instance import ROUNDING, BoundError, check_counts, check_lengths


@final
@dataclass(frozen=True)
class ActiveSet:
    """``active[r]``: how many workers of a class have to be active; ``watts``: what they take when busy."""

    watts: float
    active: np.ndarray


def fewest_watts(
    counts: ArrayLike, length_s: ArrayLike, units: ArrayLike, busy_w: ArrayLike, *, deadline_s: float
) -> ActiveSet:
    """Return the active workers of the least total busy watts that can do the tasks by the deadline.

    Minimises ``sum_r busy_w_r a_r`` over integers ``a_r <= m_r`` subject to ``sum_r n_kr = N_k``,
    ``sum_k d_kr n_kr <= a_r * deadline_s``, ``n >= 0``: a mixed-integer program. ``busy_w`` is (R,), above 0; other
    arguments and errors as for ``area_bound``.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    lengths, units = check_lengths(length_s, units)
    counts = check_counts(counts, len(lengths))
    watts = np.asarray(busy_w, float)
    if watts.shape != units.shape or not (watts > 0).all():
        raise ValueError(f"busy_w must be above 0 for each worker class, got {watts.tolist()}")
    runs = ~np.isnan(lengths)
    area, equal, unit_s = area_rows(counts, np.where(runs, lengths, 0.0), runs)
    upper = runs.ravel().astype(float)
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
        least_s = least_makespan_s(counts, lengths, units)
        raise BoundError(
            f"deadline_s={deadline_s:g} is before the least makespan of these tasks, {least_s:g} s"
        )
    if solved.x is None:
        raise BoundError(f"the solver found no set of active workers: {solved.message}")
    active = np.rint(solved.x[upper.size :]).astype(int)
    return ActiveSet(float(watts @ active), active)
