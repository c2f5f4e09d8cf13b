"""What policies make of a worker's estimates, some of which StarPU may not have."""

from __future__ import annotations

from typing import Any

import numba


@numba.njit
def known_or_zero(seconds: float) -> float:
    """Return the seconds, or 0 where they are NaN: a transfer over links that nobody has measured is not counted."""
    return seconds if seconds >= 0 else 0.0


@numba.njit
def finish_s(one: Any) -> float:
    """Return how long until a worker would end the task, its data fetched once it has done what it has.

    A transfer may overlap with what the worker has, but the link is then busy for others: counted in full it keeps
    tasks where their data are.
    """
    return one.available_s + known_or_zero(one.transfer_s) + one.length_s
