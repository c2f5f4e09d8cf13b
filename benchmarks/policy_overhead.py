"""Microseconds that a task costs under each policy of this project, beside StarPU's own: a graph of empty tasks.

Natively on blocking and polling workers, where that build is there, and on a simulated node of 24 workers: from the
first submission to the end of the last task, by the clock on the wall and in time of the processors, all threads
together, which says little of workers that poll and is the better figure on a machine that others use too. A process
holds one build of StarPU and one simulation. Interpreted policies and simulations get fewer tasks.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import schedulers
from benchmarks import measuring
from benchmarks.submission import GRAPH_TASKS, HANDLE_GROUPS, NOTHING
from dahl import starpu
from dahl.starpu import binding

TASKS = 50_000
SIMULATED_TASKS = 5_000
FEWER_INTERPRETED = 20
STARPU = ("eager", "lws", "dmda")
PLACES = ("native", "polling", "simulated")
FORMS = ("empty", "3 handles")
CLOCKS = ("wall", "processors")
LINK = starpu.Link(bandwidth_bytes_per_s=12e9, latency_s=8e-6)
GPU = starpu.Gpu(worker_class="gpu", memory_bytes=1 << 34, link=LINK)
NODE = starpu.Platform(name="cpu20_gpu4", cpu_classes=("core",) * 24, gpus=(GPU,) * 4)
"""20 cores are CPU workers, 4 drive the GPUs: 24 workers."""


def policies() -> tuple[str, ...]:
    """The policies that the package exports, by name."""
    bases = schedulers.PlacementPolicy | schedulers.PullPolicy
    exported = ((name, getattr(schedulers, name)) for name in schedulers.__all__)
    return tuple(
        name
        for name, thing in exported
        if isinstance(thing, type) and issubclass(thing, bases) and not inspect.isabstract(thing)
    )


def _scheduler(name: str, *, interpreted: bool) -> str | starpu.Policy:
    if name not in schedulers.__all__:
        return name
    policy = getattr(schedulers, name)()
    return schedulers.InterpretedPolicy(policy) if interpreted else schedulers.CompiledPolicy(policy)


def _watts(workers: tuple[starpu.Worker, ...]) -> starpu.MachineWatts:
    """Any watts: a policy that weighs joules has to be given some."""
    return starpu.MachineWatts(10.0, tuple(starpu.WorkerWatts(1.0, 8.0) for _ in workers))


def _graph(runtime: starpu.Runtime, form: str) -> starpu.TaskGraph:
    """A graph of empty tasks of equal cost on every worker. A simulation lets them last for a millisecond."""
    length_s = 1e-3 if runtime.simulated else 1e-6
    arches = ("cpu", "cuda") if runtime.simulated else ("cpu",)
    count = len(runtime.workers)
    costs = starpu.Costs([length_s] * count, [1e-5] * count)
    graph = runtime.graph()
    if form == "empty":
        empty = runtime.codelet("empty", arches=arches, model="costs")
        for _ in range(GRAPH_TASKS):
            graph.add(empty, costs=costs)
        return graph
    nothing = runtime.codelet("nothing", NOTHING, arches=arches, model="costs")
    handles = [runtime.register(np.zeros(1, np.float32)) for _ in range(3 * HANDLE_GROUPS)]
    for index in range(GRAPH_TASKS):
        at = 3 * (index % HANDLE_GROUPS)
        graph.add(nothing, handles[at : at + 3], NOTHING.pack([(1,)] * 3, {}), costs=costs)
    return graph


def _of_graphs(tasks: int) -> int:
    """So many tasks, rounded up to whole graphs."""
    return -(-tasks // GRAPH_TASKS) * GRAPH_TASKS


def measure(runtime: starpu.Runtime, form: str, tasks: int) -> tuple[float, float]:
    """Microseconds a task: of the clock on the wall, and of the processors."""
    graph = _graph(runtime, form)
    graph.submit()  # the first submission lays the graph out
    runtime.wait_all()
    start, processors = time.perf_counter(), time.process_time()
    for _ in range(tasks // GRAPH_TASKS):
        graph.submit()
    runtime.wait_all()
    seconds, processor_seconds = time.perf_counter() - start, time.process_time() - processors
    return seconds / tasks * 1e6, processor_seconds / tasks * 1e6


def _one(
    place: str, form: str, tasks: int, workers: int, cases: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Measure several schedulers in this process; a simulation takes one."""
    found = {}
    for case in cases:
        name, _, how = case.partition(", ")
        runtime = starpu.Runtime(
            cpu_workers=None if place == "simulated" else workers,
            scheduler=_scheduler(name, interpreted=how == "interpreted"),
            platform=NODE if place == "simulated" else None,
            trace=False,
            watts=_watts,
            polling=place == "polling",
        )
        count = tasks // FEWER_INTERPRETED if how == "interpreted" else tasks
        found[case] = runtime.run(measure, form, _of_graphs(count))
    return found


def _child(place: str, form: str, tasks: int, workers: int, cases: Sequence[str]) -> dict[str, list[float]]:
    question = json.dumps([place, form, tasks, workers, list(cases)])
    command = [sys.executable, "-m", "benchmarks.policy_overhead", "--one", question]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{place}, {form}, {', '.join(cases)}: {done.stderr.strip()[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _round(place: str, form: str, tasks: int, workers: int, cases: Sequence[str]) -> measuring.Case:
    """One round of every scheduler at one place, each second round in reverse order."""
    order = list(cases)

    def run() -> Mapping[str, float]:
        found: dict[str, list[float]] = {}
        for group in [[case] for case in order] if place == "simulated" else [order]:
            found |= _child(place, form, tasks, workers, group)
        order.reverse()
        return {
            f"{clock}: {case}": us for case in cases for clock, us in zip(CLOCKS, found[case], strict=True)
        }

    return run


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options(f"Microseconds a task under each policy, from {TASKS:,} empty tasks.")
    parser.add_argument("--tasks", type=measuring.positive, default=TASKS, help=f"default {TASKS}")
    parser.add_argument(
        "--simulated-tasks",
        type=measuring.positive,
        default=SIMULATED_TASKS,
        help=f"default {SIMULATED_TASKS}",
    )
    parser.add_argument("--workers", type=measuring.positive, default=min(2, measuring.cores()))
    parser.add_argument("--policies", nargs="+", choices=policies(), default=policies(), metavar="POLICY")
    parser.add_argument("--places", nargs="+", choices=PLACES, help="default: those that are built")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    return parser


def _by_clock(
    found: Mapping[str, Mapping[str, measuring.Spread]],
) -> dict[str, dict[str, measuring.Spread]]:
    """``place, form`` and ``wall: scheduler`` become ``place, form, wall`` and ``scheduler``."""
    return {
        f"{where}, {clock}": {
            case.removeprefix(f"{clock}: "): spread
            for case, spread in spreads.items()
            if case.startswith(f"{clock}: ")
        }
        for where, spreads in found.items()
        for clock in CLOCKS
    }


def _verdict(found: Mapping[str, Mapping[str, measuring.Spread]]) -> dict[str, list[str]]:
    """By column: which compiled policies cost no more than dmda, by the medians."""
    return {
        column: [
            case
            for case, spread in spreads.items()
            if case.endswith(", compiled") and spread.median <= spreads["dmda"].median
        ]
        for column, spreads in found.items()
    }


def _show(
    title: str,
    columns: Mapping[str, Mapping[str, measuring.Spread]],
    compiled: int,
    machine: measuring.Machine,
) -> None:
    """The table of one place."""
    verdict = _verdict(columns)
    names = list(next(iter(columns.values())))
    measuring.show(
        title,
        ["scheduler", *(column.partition(", ")[2] for column in columns)],
        [
            *([name, *(spreads[name].text() for spreads in columns.values())] for name in names),
            ["no more than dmda", *(f"{len(verdict[column])} of {compiled} compiled" for column in columns)],
        ],
        [machine.line()],
    )


def main() -> int:
    """Measure, print, record."""
    chosen = _parser().parse_args()
    if chosen.one:
        print(json.dumps(_one(*chosen.one)))
        return 0
    tasks = {place: chosen.simulated_tasks if place == "simulated" else chosen.tasks for place in PLACES}
    places = chosen.places or [p for p in PLACES if binding.is_built("simgrid" if p == "simulated" else p)]
    compiled = [f"{name}, compiled" for name in chosen.policies]
    interpreted = [f"{name}, interpreted" for name in chosen.policies]
    names = [*STARPU, *compiled, *interpreted]
    machine = measuring.Machine()
    _child("native", "3 handles", GRAPH_TASKS, chosen.workers, names)  # compiles the policies and the kernel
    rounds = {
        f"{place}, {form}": _round(place, form, tasks[place], chosen.workers, names)
        for place in places
        for form in FORMS
    }
    found = _by_clock(measuring.alternate(rounds, chosen.rounds))
    for place in places:
        where = "24 simulated workers" if place == "simulated" else f"{chosen.workers} {place} workers"
        title = f"{tasks[place]:,} empty tasks on {where}: microseconds a task, {chosen.rounds} rounds"
        _show(title, {k: v for k, v in found.items() if k.startswith(f"{place}, ")}, len(compiled), machine)
    measuring.record(
        chosen.json,
        "policy_overhead",
        machine,
        tasks=tasks,
        workers=chosen.workers,
        us_per_task=found,
        no_more_than_dmda=_verdict(found),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
