"""What policies make of estimates that StarPU may not have."""

from __future__ import annotations

import numba


@numba.njit
def known_or_zero(seconds: float) -> float:
    """Return the seconds, or 0 where they are NaN: a transfer over links that nobody has measured is not counted."""
    return seconds if seconds >= 0 else 0.0
