"""The idle baseline: what the machine draws while nothing runs, and whether it still does so later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from energy.counters import CounterEnergy

DRIFT_SHARE = 0.05
"""Two baselines may differ by so much of the earlier one."""

DRIFT_ERRORS = 3.0
"""And by so many standard errors of their difference."""


@dataclass(frozen=True, slots=True)
class IdleWatts:
    """One channel's idle power."""

    watts: float
    error_w: float
    """Standard error, from the spread over the parts of the measurement."""
    bound_w: float
    """Largest error that comes of the counter."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One channel's idle power before and after."""

    before_w: float
    after_w: float
    tolerance_w: float

    @property
    def drifted(self) -> bool:
        """Whether they differ by more than tolerance and noise: net joules in between are in doubt."""
        return abs(self.after_w - self.before_w) > self.tolerance_w


@dataclass(frozen=True, slots=True)
class IdleBaseline:
    """Idle power by channel: with StarPU's workers awake and without a task, and with them paused.

    Net joules take off `paused`; `awake - paused` is what an idle runtime costs.
    """

    seconds: float
    t_unix_s: float
    awake: dict[str, IdleWatts]
    paused: dict[str, IdleWatts]

    @property
    def watts(self) -> dict[str, float]:
        """What net joules take off."""
        return {channel: idle.watts for channel, idle in self.paused.items()}

    def drift(self, after: Mapping[str, IdleWatts]) -> dict[str, Drift]:
        """Compare the paused machine with itself later, by channel; one that was not read twice is left out."""
        return {
            channel: drift_between(before, after[channel])
            for channel, before in self.paused.items()
            if channel in after
        }

    def to_json(self) -> dict[str, Any]:
        """A mapping that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> IdleBaseline:
        """Raises KeyError or TypeError for a record that `to_json` did not make."""
        states = {
            state: {channel: IdleWatts(**fields) for channel, fields in record[state].items()}
            for state in ("awake", "paused")
        }
        return cls(float(record["seconds"]), float(record["t_unix_s"]), **states)


def drift_between(before: IdleWatts, after: IdleWatts) -> Drift:
    """The tolerance is the largest of a share of the power, of the noise and of the counters' bounds."""
    tolerance_w = max(
        DRIFT_SHARE * abs(before.watts),
        DRIFT_ERRORS * math.hypot(before.error_w, after.error_w),
        before.bound_w + after.bound_w,
    )
    return Drift(before.watts, after.watts, tolerance_w)


def idle_watts(parts: Sequence[CounterEnergy]) -> IdleWatts | None:
    """One channel's idle power from consecutive parts of a measurement; None where a reading is missing."""
    joules = [part.joules for part in parts]
    bounds_j = [part.bound_j for part in parts]
    if None in joules or None in bounds_j:
        return None
    known = np.array(joules, dtype=np.float64)
    seconds = np.array([part.seconds for part in parts], dtype=np.float64)
    watts = known / seconds
    error_w = float(watts.std(ddof=1) / math.sqrt(len(watts))) if len(watts) > 1 else 0.0
    # Where two parts meet one's error is the other's: the edges of the whole remain.
    bound_w = float(np.mean(np.array(bounds_j, dtype=np.float64)) / seconds.sum())
    return IdleWatts(float(known.sum() / seconds.sum()), error_w, bound_w)
