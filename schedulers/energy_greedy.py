"""Take the worker of fewest joules among those that finish soon enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from schedulers.base import PlacementPolicy
from schedulers.estimates import finish_s, known_or_zero
from schedulers.parameters import check_number


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyGreedy(PlacementPolicy):
    """Take the cheapest worker among those whose finish is within a factor of the earliest one.

        finish_w = available_s + transfer_s + length_s        (seconds from now)
        argmin of energy_j + transfer_w * transfer_s
            over workers with finish_w <= max_slowdown * min finish

    Ties go to the earlier finish, then to the lower worker id. Joules are net of idle. At ``max_slowdown=1`` this is
    minimum completion time; at infinity each task goes where it costs least.
    The decision log's score is the joules compared, NaN where the finish is too late.
    Source: this project's variant of minimum completion time (Maheswaran et al., JPDC 59(2), 1999, MCT).
    """

    max_slowdown: float = 1.5
    """Latest accepted finish as a multiple of the earliest one, >= 1."""
    transfer_w: float = 0.0
    """Watts that a transfer adds while it lasts, >= 0; 0 leaves its joules out."""

    def __post_init__(self) -> None:
        check_number("max_slowdown", self.max_slowdown, at_least=1)
        check_number("transfer_w", self.transfer_w, at_least=0)

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the cheapest worker that finishes soon enough."""
        earliest_s = math.inf
        for w in range(len(workers)):
            if workers[w].can_run:
                earliest_s = min(earliest_s, finish_s(workers[w]))
        latest_s = self.max_slowdown * earliest_s
        chosen, chosen_j, chosen_end_s = -1, math.inf, math.inf
        for w in range(len(workers)):
            end_s = finish_s(workers[w])
            if not workers[w].can_run or not end_s <= latest_s:
                continue
            cost_j = workers[w].energy_j + self.transfer_w * known_or_zero(workers[w].transfer_s)
            workers[w].score = cost_j
            if cost_j < chosen_j or (cost_j == chosen_j and end_s < chosen_end_s):
                chosen, chosen_j, chosen_end_s = w, cost_j, end_s
        return chosen
