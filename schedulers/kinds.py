"""Kinds of task (codelet and footprint) for policies that plan or learn: a table in memory, and costs by worker class.

A row of the table is three float64 of key and ``width`` of the policy's own, zero at first. Its functions are compiled
and serve compiled and interpreted policies alike.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from schedulers.base import PlacementPolicy, PullPolicy

KINDS = 512
"""Most kinds that a table takes."""

KEY = 3
MAX_CLASSES = 16
"""Most worker classes that the policies with a table by class take."""
MAX_WORKERS = 512
"""Most workers that the policies that remember something of each worker take."""


@numba.njit
def find_kind(memory: Any, table: int, width: int, codelet: int, footprint: int) -> int:
    """Return where in memory the values of a kind begin, or -1 if the table, which begins at ``table``, lacks it."""
    at = _row_of(memory, table, width, codelet, footprint)
    return at + KEY if at >= 0 and memory[at] > 0 else -1


@numba.njit
def add_kind(memory: Any, table: int, width: int, codelet: int, footprint: int) -> int:
    """Return where in memory the values of a kind begin, after putting it into the table if need be.

    Raises ValueError where the table is full.
    """
    at = _row_of(memory, table, width, codelet, footprint)
    if at < 0:
        raise ValueError("more than 512 kinds of task: this policy keeps a table of them")
    if memory[at] == 0:
        memory[at] = codelet + 2
        memory[at + 1] = footprint >> 32
        memory[at + 2] = footprint & 0xFFFFFFFF
    return at + KEY


@numba.njit
def _row_of(memory: Any, table: int, width: int, codelet: int, footprint: int) -> int:
    """The row of a kind, or the free one where it belongs, or -1; an int64 is kept as two exact halves."""
    first = (codelet * 31 + (footprint & 0x7FFFFFFF)) % KINDS
    for step in range(KINDS):
        at = table + (first + step) % KINDS * (KEY + width)
        if memory[at] == 0:
            return at
        same = memory[at + 1] == footprint >> 32 and memory[at + 2] == footprint & 0xFFFFFFFF
        if same and memory[at] == codelet + 2:
            return at
    return -1


def costs_by_class(
    policy: PlacementPolicy | PullPolicy, kinds: Any, workers: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what a plan is made from: lengths in s and energies in J (K, R), workers (R) and one of them (R) by class.

    NaN stands where a class cannot run a kind. Raises ValueError where a cost that the policy needs is unknown, or a
    class is too many.
    """
    name, classes = type(policy).__name__, workers[0]["worker_class"]
    if classes.size > MAX_WORKERS or classes.max() >= MAX_CLASSES:
        raise ValueError(
            f"policy {name} takes up to {MAX_WORKERS} workers in {MAX_CLASSES} classes, "
            f"got {classes.size} in {classes.max() + 1}"
        )
    units = np.bincount(classes)
    first = np.array([np.argmax(classes == c) for c in range(units.size)])
    runs = workers["can_run"][:, first] != 0
    costs = []
    for cost in ("length_s", "energy_j"):
        known = workers[cost][:, first]
        unknown = (runs & np.isnan(known)).any(axis=1)
        if unknown.any() and cost in policy.NEEDS:
            kind = kinds[int(unknown.argmax())]
            raise ValueError(
                f"policy {name} needs {cost} of codelet {kind['codelet']}, which is unknown: "
                "`python -m experiments.calibrate` measures it"
            )
        costs.append(np.where(runs, known, np.nan))
    return costs[0], costs[1], units, first
