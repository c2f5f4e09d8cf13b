"""How StarPU's own policies that place by expected times weigh joules: gamma, for ``dmda``, ``dmdas`` and the like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class EnergyWeight:
    """What a joule costs beside time, for a policy of StarPU's that asks each task for its expected joules.

    Source: ``_gamma`` and ``idle_power`` in StarPU's src/sched_policies/deque_modeling_policy_data_aware.c.
    """

    gamma_us_per_j: float
    """Microseconds of delay that a joule is worth (``STARPU_SCHED_GAMMA``)."""
    idle_w: float = 0.0
    """What the whole machine draws while the last task is waited for (``STARPU_IDLE_POWER``)."""

    def __post_init__(self) -> None:
        for name, value in (("gamma_us_per_j", self.gamma_us_per_j), ("idle_w", self.idle_w)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be 0 or more, got {value}")

    def environment(self) -> dict[str, str]:
        """What StarPU reads when it starts."""
        return {"STARPU_SCHED_GAMMA": repr(self.gamma_us_per_j), "STARPU_IDLE_POWER": repr(self.idle_w)}
