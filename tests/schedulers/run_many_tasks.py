"""Many short tasks of random length under one policy: ``python -m tests.schedulers.run_many_tasks KIND TASKS``.

Bursts, windows and pauses are drawn at random, so that workers fall asleep and wake at any moment.
Prints one JSON object: the tasks that ran, seconds, peak memory, the longest burst and the median burst after a pause.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.memory import memory_mib
from dahl import starpu
from schedulers import CompiledPolicy, EagerEnergy, PlacementPolicy, PullPolicy
from tests.schedulers.policies import EarliestFinish

BURST = 50
LANES = 8
"""Chains of dependent tasks: most tasks become ready on a worker that ends another."""

POLICIES: dict[str, PlacementPolicy | PullPolicy] = {"pull": EagerEnergy(), "placement": EarliestFinish()}


def _delay(lane: Any) -> None:
    """Spin for as long as the data say: mostly some 100 ns, of 256 times once some 10 us."""
    x = lane[0]
    x ^= (x << 13) & 0x7FFFFFFFFFFFFFFF
    x ^= x >> 7
    x ^= (x << 17) & 0x7FFFFFFFFFFFFFFF
    turns = (x >> 8) & (0xFFFF if x & 0xFF == 0 else 0xFF)
    left = x
    for _ in range(turns):
        left = left * 3 + 1
    lane[0] = x
    lane[1] += 1
    lane[2] = left


DELAY = starpu.Kernel("delay", _delay, (starpu.Operand("lane", "rw", 1, "int64"),))


def watts(workers: Sequence[starpu.Worker]) -> starpu.MachineWatts:
    """12 W while something waits: leaving a task that costs 0.1 mJ less elsewhere pays for 8 us of waiting."""
    return starpu.MachineWatts(10.0, tuple(starpu.WorkerWatts(1.0, 8.0) for _ in workers))


def submit_all(runtime: starpu.Runtime, tasks: int) -> dict[str, float]:
    """Submit them in bursts, some of them after a pause that is long enough for the last worker to fall asleep."""
    codelet = runtime.codelet("delay", DELAY, model="costs")
    lanes = [runtime.register(np.array([lane + 1, 0, 0])) for lane in range(LANES)]
    args = DELAY.pack([(3,)], {})
    # Each lane is cheaper on one of the workers, so that eager_energy leaves tasks to the other one.
    costs = [starpu.Costs([2e-6, 2e-6], [1e-5 + 1e-4 * w, 1e-5 + 1e-4 * (1 - w)]) for w in (0, 1)]
    graph = runtime.graph()
    for index in range(BURST):
        graph.add(codelet, [lanes[index % LANES]], args, costs=costs[index % 2])
    chance = random.Random(3)
    longest_s, after_pause_s = 0.0, []
    for _ in range(tasks // BURST):
        paused = chance.random() < 0.1
        if paused:
            runtime.wait_all()
            time.sleep(chance.uniform(0.0003, 0.002))
        start = time.monotonic()
        graph.submit()
        runtime.wait_submitted(0 if paused else chance.choice((0, 1, 2, 10, 100, 1000, 1000, 1000)))
        longest_s = max(longest_s, time.monotonic() - start)
        if paused:
            after_pause_s.append(time.monotonic() - start)
    runtime.wait_all()
    ran = 0
    for lane in lanes:
        with lane.acquire() as values:
            ran += int(values[1])
    median_s = statistics.median(after_pause_s) if after_pause_s else float("nan")
    return {"ran": ran, "pauses": len(after_pause_s), "longest_s": longest_s, "after_pause_s": median_s}


def main() -> None:
    """Run them and print the figures."""
    kind, tasks = sys.argv[1], int(sys.argv[2])
    policy = CompiledPolicy(POLICIES[kind])
    runtime = starpu.Runtime(cpu_workers=2, scheduler=policy, watts=watts, trace=False)
    runtime.run(submit_all, BURST)  # compiles
    start = time.monotonic()
    figures = runtime.run(submit_all, tasks)
    figures["seconds"] = time.monotonic() - start
    figures["peak_mib"] = memory_mib()[
        1
    ]  # not ru_maxrss: that starts from the size of the process that forked
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
