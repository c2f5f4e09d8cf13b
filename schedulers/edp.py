"""Minimise the energy-delay product of each task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

from schedulers.base import PlacementPolicy
from schedulers.estimates import finish_s
from schedulers.parameters import check_number


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Edp(PlacementPolicy):
    """Take the worker with the least energy^energy_exponent * delay^delay_exponent for this task.

        delay_w  = available_s + transfer_s + length_s        (finish, in seconds from now)
        energy_w = energy_j + (base_w + idle_w) * max(0, delay_w - horizon)
        horizon  = latest available_s of all workers: when the machine would be done without this task

    So the energy is what the task adds to the machine's: its own joules net of idle, and the whole machine's idle watts
    over the time by which it makes the schedule longer. Negative joules (noise of a measurement) count as 0.
    Ties go to the earlier finish, then to the lower worker id. The decision log's score is the product.

    Exponents 1 and 1 are the energy-delay product (Gonzalez and Horowitz, IEEE JSSC 31(9), 1996), 1 and 2 ED2P, 0 and 1
    minimum completion time, 1 and 0 the fewest added joules; E^a D^b in general: Penzes and Martin, GLSVLSI 2002.
    Minimising it for each task by itself is this project's choice.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("length_s", "energy_j", "idle_w")

    energy_exponent: float = 1.0
    """Weight of the energy, >= 0; not 0 together with the other."""
    delay_exponent: float = 1.0
    """Weight of the delay, >= 0."""

    def __post_init__(self) -> None:
        check_number("energy_exponent", self.energy_exponent, at_least=0)
        check_number("delay_exponent", self.delay_exponent, at_least=0)
        if self.energy_exponent == 0 and self.delay_exponent == 0:
            raise ValueError("energy_exponent and delay_exponent are both 0: set one of them above 0")

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the worker of the least product."""
        horizon_s = 0.0
        for w in range(len(workers)):
            horizon_s = max(horizon_s, workers[w].available_s)
        chosen, least, chosen_delay_s = -1, math.inf, math.inf
        for w in range(len(workers)):
            if not workers[w].can_run:
                continue
            delay_s = finish_s(workers[w])
            prolonged_j = (system.base_w + system.idle_w) * max(0.0, delay_s - horizon_s)
            cost_j = max(0.0, workers[w].energy_j + prolonged_j)
            product = cost_j**self.energy_exponent * delay_s**self.delay_exponent
            workers[w].score = product
            if product < least or (product == least and delay_s < chosen_delay_s):
                chosen, least, chosen_delay_s = w, product, delay_s
        return chosen
