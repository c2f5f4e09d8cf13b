"""Checks of policies' parameters."""

from __future__ import annotations

import math


def check_number(
    name: str,
    value: object,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
) -> None:
    """Raise ValueError, naming the parameter and its value, unless it is a number within the bounds."""
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and at_least <= value <= at_most
        and value > above
    ):
        return
    words = {"at least": at_least, "above": above, "at most": at_most}
    bounds = " and ".join(f"{word} {bound:g}" for word, bound in words.items() if math.isfinite(bound))
    raise ValueError(f"{name} must be a number {bounds}, got {value!r}")
