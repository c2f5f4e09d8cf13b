"""Leave a task to the worker that does it for the fewest joules, what flows until its end included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numba

from schedulers.base import PullPolicy
from schedulers.estimates import finish_s
from schedulers.parameters import check_number


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EagerEnergy(PullPolicy):
    """Take the oldest ready task that no other worker would do for fewer joules, waiting for that one included.

    A worker does a task for its joules there, and the machine's idle watts until the end of it, since everything may
    have to wait for the task:

        energy_j + wait_weight * (base_w + idle_w) * (available_s + transfer_s + length_s)

    So leaving a task to a cheaper worker costs what flows until that one is free and for as long as it then takes.
    Joules are net of idle. On equal workers one that is free never declines, which makes the policy ``eager``. The
    worker of the fewest joules takes the task when it is next free, so none starves. The decision log's score is the
    joules compared.
    Source: this project, after the single queue of StarPU's eager (src/sched_policies/eager_central_policy.c).
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("length_s", "energy_j", "idle_w")

    wait_weight: float = 1.0
    """Multiplies the joules of waiting, 0 to 1e6. At 0 only the cheapest workers run; large values take the earliest
    end."""

    def __post_init__(self) -> None:
        check_number("wait_weight", self.wait_weight, at_least=0, at_most=1e6)

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the oldest row that this worker should take, or -1."""
        waiting_w = self.wait_weight * (system.base_w + system.idle_w)
        chosen = -1
        for row in range(len(ready)):
            if chosen >= 0 and ready[row].sequence > ready[chosen].sequence:
                continue
            here_j = _until_its_end_j(workers[row, worker], waiting_w)
            least_j = here_j
            for other in range(workers.shape[1]):
                if workers[row, other].can_run:
                    workers[row, other].score = _until_its_end_j(workers[row, other], waiting_w)
                    least_j = min(least_j, workers[row, other].score)
            if here_j <= least_j:
                chosen = row
        return chosen


@numba.njit
def _until_its_end_j(one: Any, waiting_w: float) -> float:
    """Joules of the task on a worker, and what flows meanwhile from now until its end there."""
    return one.energy_j + waiting_w * finish_s(one)
