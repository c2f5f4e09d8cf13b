"""StarPU's own scheduling policies, by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StarPUScheduler:
    """One of StarPU's policies.

    ``needs_costs`` says whether it places by expected times, which are then measured before the run.
    Source: the table in StarPU's src/core/sched_policy.c.
    """

    name: str
    """StarPU's name of the policy, as ``STARPU_SCHED`` takes it."""
    gamma_us_per_j: float = 1000.0
    """For ``dmda`` and its kin: microseconds of delay that a joule is worth, >= 0. The default is StarPU's."""
    idle_w: float = 0.0
    """For the same: watts of the idle machine, charged for every microsecond by which the end moves, >= 0."""

    def __post_init__(self) -> None:
        for field, value in (("gamma_us_per_j", self.gamma_us_per_j), ("idle_w", self.idle_w)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{field} must be 0 or more, got {value}")
        if self.weighs_energy and not self._asks_for_energy:
            raise ValueError(
                f"{self.name} never asks for joules: gamma_us_per_j and idle_w are for dmda and its kin"
            )

    @property
    def weighs_energy(self) -> bool:
        """Whether joules weigh otherwise than StarPU has it."""
        return (self.gamma_us_per_j, self.idle_w) != (1000.0, 0.0)

    @property
    def _asks_for_energy(self) -> bool:
        return self.name in ("dmda", "dmdap", "dmdar", "dmdas", "dmdasd") or self.name.startswith(
            ("modular-dmda", "modular-heft")
        )

    @property
    def needs_costs(self) -> bool:
        """Whether the policy places by expected times."""
        modular = self.name.removeprefix("modular-")
        return modular.startswith(("dm", "heft", "heteroprio", "pheft", "gemm", "graph_test"))
