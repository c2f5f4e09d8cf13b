"""Leave a task to the worker class that does it for the fewest joules, unless waiting for that one costs more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from schedulers.base import PullPolicy


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EagerEnergy(PullPolicy):
    """Take the oldest ready task whose joules here are no more than leaving it to a cheaper worker would cost.

    Leaving a task costs the joules of the worker that does it cheapest (of equals, the one that is free first), and
    until that one is free the machine's idle watts, because everything may have to wait for the task:

        e_here <= e_cheapest + available_s(cheapest) * (base_w + idle_w)

    Joules are net of idle. On equal workers the condition always holds, which makes the policy ``eager``. The cheapest
    worker itself never declines, so no task starves. Source: this project, after the single queue of StarPU's eager
    (src/sched_policies/eager_central_policy.c).
    """

    wait_weight: float = 1.0
    """Multiplies the joules of waiting, >= 0. At 0 only the cheapest workers run; large values approach eager."""

    def __post_init__(self) -> None:
        if not self.wait_weight >= 0:
            raise ValueError(f"wait_weight must be 0 or more, got {self.wait_weight}")

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the oldest row that this worker should take, or -1."""
        waiting_w = self.wait_weight * (system.base_w + system.idle_w)
        chosen = -1
        for row in range(len(ready)):
            if chosen >= 0 and ready[row].sequence > ready[chosen].sequence:
                continue
            cheapest = worker
            for other in range(workers.shape[1]):
                if not workers[row, other].can_run:
                    continue
                saved_j = workers[row, cheapest].energy_j - workers[row, other].energy_j
                sooner = workers[row, other].available_s < workers[row, cheapest].available_s
                if saved_j > 0 or (saved_j == 0 and sooner):
                    cheapest = other
            leave_j = workers[row, cheapest].energy_j + workers[row, cheapest].available_s * waiting_w
            if workers[row, worker].energy_j <= leave_j:
                chosen = row
        return chosen
