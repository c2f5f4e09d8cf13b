"""Lengths of simulated tasks that vary on purpose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Noise:
    """Each task takes its length times ``exp(sigma z - sigma^2 / 2)``, z standard normal: a lognormal factor of mean 1.

    z comes from ``seed`` and the task's number alone, whoever runs it and when. A policy expects the length without.
    """

    sigma: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.sigma >= 0 and math.isfinite(self.sigma)):
            raise ValueError(f"the noise's sigma must be 0 or more, got {self.sigma}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"the noise's seed must be at least 0 and below 2^63, got {self.seed}")
