"""StarPU's dmda: minimum completion time with a price on joules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

from schedulers.base import PlacementPolicy
from schedulers.estimates import known_or_zero
from schedulers.parameters import check_number


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GammaMct(PlacementPolicy):
    """Take the worker of least fitness, where a joule counts as ``gamma_s_per_j`` seconds.

        finish_w  = max(available_s, transfer_s) + length_s        (seconds from now)
        fitness_w = alpha * (finish_w - min finish) + beta * transfer_s
                    + gamma_s_per_j * (energy_j + (base_w + idle_w) * max(0, finish_w - horizon))
        horizon   = latest available_s of the workers that can run the task

    The last term charges the machine's idle watts where the task makes the schedule longer. Ties go to the lower worker
    id. Source: ``_dmda_push_task`` in StarPU's src/sched_policies/deque_modeling_policy_data_aware.c. What differs:

    - StarPU takes the idle watts from STARPU_IDLE_POWER and gamma in microseconds per joule
      (STARPU_SCHED_GAMMA=1000 is 0.001 here).
    - StarPU counts unknown joules as 0, and spreads tasks of unknown length; here the run stops before it starts.
    - StarPU compares a codelet's implementations too; here there is one for each worker.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("length_s", "energy_j", "idle_w")

    alpha: float = 1.0
    """Weight of the finish, >= 0."""
    beta: float = 1.0
    """Weight of the transfer, >= 0."""
    gamma_s_per_j: float = 1e-3
    """Seconds that one joule is worth, >= 0. At 0 joules do not count."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma_s_per_j"):
            check_number(name, getattr(self, name), at_least=0)

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the worker of least fitness."""
        earliest_s, horizon_s = math.inf, 0.0
        for w in range(len(workers)):
            if workers[w].can_run:
                finish_s = (
                    max(workers[w].available_s, known_or_zero(workers[w].transfer_s)) + workers[w].length_s
                )
                earliest_s = min(earliest_s, finish_s)
                horizon_s = max(horizon_s, workers[w].available_s)
        chosen, least = -1, math.inf
        for w in range(len(workers)):
            if not workers[w].can_run:
                continue
            finish_s = max(workers[w].available_s, known_or_zero(workers[w].transfer_s)) + workers[w].length_s
            prolonged_j = (system.base_w + system.idle_w) * max(0.0, finish_s - horizon_s)
            fitness = self.alpha * (finish_s - earliest_s) + self.beta * known_or_zero(workers[w].transfer_s)
            fitness += self.gamma_s_per_j * (workers[w].energy_j + prolonged_j)
            workers[w].score = fitness
            if fitness < least:
                chosen, least = w, fitness
        return chosen
