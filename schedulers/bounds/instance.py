"""What every bound is asked about: kinds of task on classes of workers, and the watts around them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike

ROUNDING = 1e-6
"""By how much, relatively, a solver's answer may overstep a deadline or a cap."""


class BoundError(ValueError):
    """There is no schedule of this kind; the message says which figure rules it out."""


@final
@dataclass(frozen=True)
class Instance:
    """Checked figures; where a class cannot run a kind, ``runs`` is False and length and energy are 0.

    With a parking class's watts ``p_r`` every second of a task costs ``p_r`` joules, since its worker is not parked
    then, and every second of the schedule ``m_r p_r`` joules less: energies and ``static_w`` have both in them.
    """

    length_s: np.ndarray
    energy_j: np.ndarray
    runs: np.ndarray
    units: np.ndarray
    static_w: float
    cap_w: float
    apart: np.ndarray
    """Whether each worker of a class has a memory of its own; the others share one."""


def check_instance(
    length_s: ArrayLike,
    energy_j: ArrayLike,
    units: ArrayLike,
    *,
    static_w: float,
    parking_w: ArrayLike | None = None,
    cap_w: float = math.inf,
    apart: ArrayLike | None = None,
) -> Instance:
    """Return the figures as arrays, with parking counted into energies and static watts.

    Raises BoundError where a kind has no class, or none within the cap, and ValueError for what makes no sense.
    """
    lengths, units_ = check_lengths(length_s, units)
    energies = np.asarray(energy_j, float)
    runs = ~np.isnan(lengths)
    if energies.shape != lengths.shape or np.isnan(energies[runs]).any():
        raise ValueError("energy_j must be known wherever length_s is")
    if not (static_w >= 0 and math.isfinite(static_w)):
        raise ValueError(f"static_w must be 0 or more, got {static_w}")
    lengths, energies = np.where(runs, lengths, 0.0), np.where(runs, energies, 0.0)
    saved_w = np.zeros(units_.size) if parking_w is None else np.asarray(parking_w, float)
    if saved_w.shape != units_.shape or not (saved_w >= 0).all() or saved_w @ units_ > static_w * (1 + 1e-9):
        raise ValueError(
            f"parking_w must be 0 or more for each class and in all at most static_w={static_w:g}, "
            f"got {saved_w.tolist()}"
        )
    energies, static_w = energies + lengths * saved_w, max(0.0, float(static_w - saved_w @ units_))
    if not cap_w > 0:
        raise ValueError(f"cap_w must be above 0, got {cap_w}")
    own_memory = np.zeros(units_.size, bool) if apart is None else np.asarray(apart, bool)
    if own_memory.shape != units_.shape:
        raise ValueError(f"apart must be true or false for each class, got {own_memory.tolist()}")
    allowed = _within(cap_w, runs, lengths, energies, static_w)
    return Instance(lengths, energies, allowed, units_, static_w, cap_w, own_memory)


def check_counts(counts: ArrayLike, kinds: int) -> np.ndarray:
    """Return the (K,) counts; raises ValueError unless each is above 0."""
    found = np.asarray(counts, float)
    if found.shape != (kinds,):
        raise ValueError(f"counts has the shape {found.shape}, expected ({kinds},)")
    if not (found > 0).all():
        raise ValueError(f"counts must be above 0, got {found.tolist()}")
    return found


def check_lengths(length_s: ArrayLike, units: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return (K, R) lengths, NaN where a class cannot run a kind, and (R,) units; raises as ``check_instance``."""
    lengths, units_ = np.asarray(length_s, float), np.asarray(units, float)
    if lengths.ndim != 2 or lengths.shape[1] != units_.size or lengths.size == 0:
        raise ValueError(f"length_s has the shape {lengths.shape}, expected (kinds, {units_.size})")
    if not (units_ >= 1).all():
        raise ValueError(f"units must be 1 or more, got {units_.tolist()}")
    if (lengths <= 0).any() or np.isinf(lengths).any():
        raise ValueError("length_s must be above 0 and finite, or NaN where a class cannot run a kind")
    nowhere = np.isnan(lengths).all(axis=1)
    if nowhere.any():
        raise BoundError(f"no worker class can run kind {int(nowhere.argmax())} of the tasks")
    return lengths, units_


def _within(
    cap_w: float, runs: np.ndarray, lengths: np.ndarray, energies: np.ndarray, static_w: float
) -> np.ndarray:
    """Where a kind may run: one task alone must not take the machine over its cap."""
    if math.isinf(cap_w):
        return runs
    drawn_w = static_w + np.divide(energies, lengths, out=np.zeros_like(lengths), where=runs)
    allowed: np.ndarray = runs & (drawn_w <= cap_w * (1 + ROUNDING))
    nowhere = ~allowed.any(axis=1)
    if nowhere.any():
        kind = int(nowhere.argmax())
        least_w = float(drawn_w[kind][runs[kind]].min())
        raise BoundError(
            f"cap_w={cap_w:g} rules out kind {kind} of the tasks, which alone takes the machine to {least_w:g} W"
        )
    return allowed
