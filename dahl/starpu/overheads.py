"""What the runtime takes around a task, for simulations that are to come near a real machine."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import final

NO_FIXED_COSTS = {
    f"STARPU_SIMGRID_{name}_COST": "0" for name in ("TASK_SUBMIT", "TASK_PUSH", "FETCHING_INPUT", "SCHED")
}
"""Variables that turn off the microseconds that StarPU takes in every simulation, in place of which these stand."""

STARPU_GAP_S = 1e-6
"""What is left of them: from a task's end to the next one's start."""


@final
@dataclass(frozen=True, slots=True)
class Overheads:
    """Seconds that a simulated runtime takes for each task; none of them is part of the task's length."""

    before_s: float = 0.0
    """Of a worker, from when it could take a task to the task's start, beyond `STARPU_GAP_S`."""
    after_s: float = 0.0
    """Of a worker, from a task's end until those that waited for it are ready."""
    wake_s: float = 0.0
    """Of a worker that had none before, on top."""
    submit_s: float = 0.0
    """Of the submitting thread."""

    def __post_init__(self) -> None:
        for name, seconds in zip(self.__slots__, astuple(self), strict=True):
            if not (seconds >= 0 and math.isfinite(seconds)):
                raise ValueError(f"the overhead {name} must be 0 or more, got {seconds}")
