"""What was measured of each kind of task alone, set beside mini-batches as training runs them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dahl import starpu
from energy import AttributionError, EnergySession, MeterRecords, attribute, read_stream
from energy.attribution import meter_records
from experiments.alone import TaskRunner

CHECK_S = 2.0
"""How long mini-batches run at least."""


@dataclass(frozen=True)
class Mixed:
    """Tasks of all kinds together, and what the counters showed meanwhile."""

    seconds: float
    workers: int
    trace: np.ndarray
    joules: float
    """Above the idle machine; NaN where a reading was missing."""
    runtime_w: float
    idle_w: float
    """Of the meter."""
    meter: MeterRecords

    def check(self, kinds: Mapping[int, tuple[str, float]]) -> dict[str, Any]:
        """Compare with the key and the watts of each kind, by footprint.

        `never_apart` lists kinds that ran in the same proportion in every interval of the meter: a trace of
        training alone cannot tell their watts from one another.
        """
        lengths_s = self.trace["end_s"] - self.trace["start_s"]
        numbers = self.trace["footprint"].tolist()
        own_w = np.array([kinds[number][1] if number in kinds else math.nan for number in numbers])
        idle_s = max(0.0, self.workers * self.seconds - float(lengths_s.sum()))
        keys = [kinds[number][0] if number in kinds else f"kind {number}" for number in numbers]
        return {
            "seconds": self.seconds,
            "measured_j": self.joules,
            "predicted_j": float((own_w * lengths_s).sum()) + self.runtime_w * idle_s,
            **self._fit(keys),
        }

    def _fit(self, keys: list[str]) -> dict[str, Any]:
        tasks = {name: self.trace[name] for name in ("worker", "start_s", "end_s")} | {"codelet": keys}
        try:
            found = attribute(self.meter, tasks, [""] * self.workers, self.idle_w, resamples=0)
        except AttributionError:
            return {"never_apart": None, "intervals": len(self.meter.joules)}
        apart = [[key for key, _ in power.classes] for power in found.classes if power.merged]
        return {
            "never_apart": apart,
            "intervals": found.intervals,
            "rank": found.rank,
            "condition": found.condition,
            "residual_share": found.residual_share,
        }


def run_mixed(
    runtime: starpu.Runtime,
    session: EnergySession,
    runner: TaskRunner,
    rehearse: Callable[[int], None],
    stream: Path,
) -> Mixed:
    """Run mini-batches, one after the other, with the session's readings in its stream."""
    runtime.take_trace()
    offset_ns = time.monotonic_ns() - round(runtime.now_s() * 1e9)
    start, start_s = session.snapshot(), runtime.now_s()
    while runtime.now_s() - start_s < max(CHECK_S, 4 * runner.burst_s):
        rehearse(1)
    end, end_s = session.snapshot(), runtime.now_s()
    counted = session.between(start, end)
    net_j = [
        math.nan
        if (joules := counted[name].joules) is None
        else joules - session.idle_w[name] * counted[name].seconds
        for name in runner.channels
    ]
    whole = meter_records(read_stream(stream), runner.channels[0], offset_ns)
    inside = (whole.start_s >= start_s) & (whole.end_s <= end_s)
    meter = MeterRecords(whole.channel, whole.start_s[inside], whole.end_s[inside], whole.joules[inside])
    return Mixed(
        seconds=end_s - start_s,
        workers=len(runtime.workers),
        trace=runtime.take_trace(),
        joules=sum(net_j),
        runtime_w=runner.runtime_w,
        idle_w=session.idle_w[meter.channel],
        meter=meter,
    )
