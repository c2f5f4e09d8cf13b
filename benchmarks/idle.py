"""CPU time of a process whose workers have nothing to do, and what waking them costs.

By build of StarPU, scheduler and number of workers; awake, and paused with ``Runtime.pause``.
The round trip is one empty task, from its submission until the wait for it is over: one after the other, and each
after a rest in which idle workers fall asleep.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import measuring
from dahl import starpu
from dahl.starpu import binding
from schedulers import CompiledPolicy, EagerEnergy

SETTLE_S = 0.05
REST_S = 0.002
TRIPS = 200
BUILDS = ("native", "polling")
SCHEDULERS = ("eager", "lws", "dmda", "EagerEnergy")
HEADINGS = {
    "awake": "cores, awake",
    "paused": "cores, paused",
    "trip_us": "round trip, us",
    "rested_trip_us": "after a rest, us",
}


def _watts(workers: tuple[starpu.Worker, ...]) -> starpu.MachineWatts:
    """Any watts: a policy that weighs joules has to be given some."""
    return starpu.MachineWatts(10.0, tuple(starpu.WorkerWatts(1.0, 8.0) for _ in workers))


def _busy_cores(seconds: float) -> float:
    """Cores that this process keeps busy while this thread sleeps."""
    time.sleep(SETTLE_S)
    cpu_s, start = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    return (time.process_time() - cpu_s) / (time.perf_counter() - start)


def _round_trip_us(runtime: starpu.Runtime, rest_s: float) -> float:
    """Median microseconds from submitting an empty task to the end of the wait for it."""
    empty = runtime.codelet("empty", model="costs")
    costs = starpu.Costs([1e-6] * len(runtime.workers), [1e-5] * len(runtime.workers))
    found = []
    for _ in range(TRIPS):
        if rest_s:
            time.sleep(rest_s)
        start = time.perf_counter()
        runtime.submit(empty, costs=costs)
        runtime.wait_all()
        found.append(time.perf_counter() - start)
    return statistics.median(found) * 1e6


def measure(runtime: starpu.Runtime, seconds: float) -> dict[str, float]:
    """The figures of one runtime."""
    trips = {"trip_us": _round_trip_us(runtime, 0.0), "rested_trip_us": _round_trip_us(runtime, REST_S)}
    awake = _busy_cores(seconds)
    runtime.pause()
    try:
        paused = _busy_cores(seconds)
    finally:
        runtime.resume()
    return {"awake": awake, "paused": paused, **trips}


def _case(build: str, scheduler: str, workers: int, seconds: float) -> measuring.Case:
    """One measurement in a process of its own: a process holds one build."""
    command = [sys.executable, "-m", "benchmarks.idle", "--one", build, scheduler, str(workers), str(seconds)]

    def run() -> Mapping[str, float]:
        root = Path(__file__).parents[1]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{build}, {scheduler}, {workers} workers: {done.stderr.strip()[-2000:]}")
        return dict(json.loads(done.stdout.splitlines()[-1]))

    return run


def _one(build: str, scheduler: str, workers: str, seconds: str) -> None:
    chosen = CompiledPolicy(EagerEnergy()) if scheduler == "EagerEnergy" else scheduler
    runtime = starpu.Runtime(
        cpu_workers=int(workers), scheduler=chosen, trace=False, watts=_watts, polling=build == "polling"
    )
    print(json.dumps(runtime.run(measure, float(seconds))))


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options("Cores that idle workers keep busy, and the time that waking them takes.")
    parser.add_argument("--seconds", type=float, default=1.0, help="each measurement (default 1)")
    parser.add_argument(
        "--workers", type=measuring.positive, nargs="+", default=sorted({1, min(2, measuring.cores())})
    )
    parser.add_argument("--schedulers", nargs="+", default=SCHEDULERS, choices=SCHEDULERS)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    return parser


def main() -> int:
    """Measure, print, record."""
    chosen = _parser().parse_args()
    if chosen.one:
        _one(*chosen.one)
        return 0
    builds = [build for build in BUILDS if binding.is_built(build)]
    machine = measuring.Machine()
    cases = {
        f"{build}, {scheduler}, {workers} worker{'s' if workers > 1 else ''}": _case(
            build, scheduler, workers, chosen.seconds
        )
        for build in builds
        for scheduler in chosen.schedulers
        for workers in chosen.workers
    }
    _case("native", "EagerEnergy", 1, 0.0)()  # compiles the policy
    found = measuring.alternate(cases, chosen.rounds)
    digits = {"awake": 3, "paused": 3, "trip_us": 1, "rested_trip_us": 1}
    measuring.show(
        f"Idle for {chosen.seconds:g} s, {chosen.rounds} rounds",
        ["build, scheduler, workers", *HEADINGS.values()],
        [[case, *(spreads[key].text(digits[key]) for key in HEADINGS)] for case, spreads in found.items()],
        [
            machine.line(),
            *(f"no {build} build: {binding.way_to_build(build)}" for build in BUILDS if build not in builds),
        ],
    )
    measuring.record(chosen.json, "idle", machine, seconds=chosen.seconds, rest_s=REST_S, idle=found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
