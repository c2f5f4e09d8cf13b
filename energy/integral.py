"""Energy from samples of power, for hardware that counts none."""

from __future__ import annotations

from typing import final

LONGEST_GAP_S = 0.5
"""Samples further apart say nothing of the energy between them; sample at 4 Hz at least."""

_UW_NS_TO_UJ = 1_000_000_000


@final
class PowerIntegral:
    """A cumulative counter in uJ, made of samples by the trapezoid rule.

    The sum is kept in whole uW ns, so no rounding adds up. Where power rises or falls steadily between two
    samples h seconds apart, the trapezoid is off by at most h / 2 times the change.
    """

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None
        self._twice_uw_ns = 0

    def add(self, t_ns: int, power_uw: int) -> int:
        """Take a sample; return the uJ since the first. Raises `ValueError` for a time before the last one's."""
        if self._last is not None:
            last_ns, last_uw = self._last
            if t_ns < last_ns:
                raise ValueError(f"a sample of power at {t_ns} ns comes after one at {last_ns} ns")
            self._twice_uw_ns += (last_uw + power_uw) * (t_ns - last_ns)
        self._last = (t_ns, power_uw)
        return self._twice_uw_ns // (2 * _UW_NS_TO_UJ)
