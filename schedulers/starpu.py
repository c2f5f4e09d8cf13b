"""StarPU's own scheduling policies, by name."""

from __future__ import annotations

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

    @property
    def needs_costs(self) -> bool:
        """Whether the policy places by expected times."""
        modular = self.name.removeprefix("modular-")
        return modular.startswith(("dm", "heft", "heteroprio", "pheft", "gemm", "graph_test"))
