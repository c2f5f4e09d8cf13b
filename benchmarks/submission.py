"""Microseconds that a task costs: empty tasks submitted one by one from Python, and as a recorded graph.

The time runs from the first submission to the end of the last task.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from benchmarks import measuring
from dahl import starpu
from schedulers import CompiledPolicy, EagerEnergy

TASKS = 50_000
GRAPH_TASKS = 100
"""Tasks of the recorded graph; a training step has some 70."""
HANDLE_GROUPS = 32
TARGET_US = 6.0


def _nothing(x: Any, y: Any, z: Any) -> None:
    pass


NOTHING = starpu.Kernel(
    "nothing",
    _nothing,
    (starpu.Operand("x", "r", 1), starpu.Operand("y", "r", 1), starpu.Operand("z", "rw", 1)),
)


@final
@dataclass(frozen=True)
class Forms:
    """The ways to submit tasks that are compared, on one runtime."""

    runtime: starpu.Runtime
    tasks: int

    def measure(self) -> dict[str, float]:
        """Microseconds a task, by form."""
        runtime, workers = self.runtime, len(self.runtime.workers)
        costs = starpu.Costs([1e-6] * workers, [1e-5] * workers)
        empty = runtime.codelet("empty", model="costs")
        nothing = runtime.codelet("nothing", NOTHING, model="costs")
        arrays = [np.zeros(1, np.float32) for _ in range(3 * HANDLE_GROUPS)]
        handles = [runtime.register(array) for array in arrays]
        groups = [handles[at : at + 3] for at in range(0, len(handles), 3)]
        args = NOTHING.pack([(1,)] * 3, {})
        graph, data_graph = runtime.graph(), runtime.graph()
        for index in range(GRAPH_TASKS):
            graph.add(empty, costs=costs)
            data_graph.add(nothing, groups[index % HANDLE_GROUPS], args, costs=costs)

        def submit_each() -> None:
            for _ in range(self.tasks):
                runtime.submit(empty, costs=costs)

        def submit_each_with_data() -> None:
            for index in range(self.tasks):
                runtime.submit(nothing, groups[index % HANDLE_GROUPS], args, costs=costs)

        return {
            "submit": self._timed(submit_each),
            "submit, 3 handles": self._timed(submit_each_with_data),
            "graph": self._timed(lambda: self._replay(graph)),
            "graph, 3 handles": self._timed(lambda: self._replay(data_graph)),
        }

    def _replay(self, graph: starpu.TaskGraph) -> None:
        for _ in range(self.tasks // GRAPH_TASKS):
            graph.submit()

    def _timed(self, submit: Callable[[], None]) -> float:
        start = time.perf_counter()
        submit()
        self.runtime.wait_all()
        seconds = time.perf_counter() - start
        self.runtime.take_trace()
        return seconds / self.tasks * 1e6


def _watts(workers: tuple[starpu.Worker, ...]) -> starpu.MachineWatts:
    """Any watts: a policy that weighs joules has to be given some."""
    return starpu.MachineWatts(10.0, tuple(starpu.WorkerWatts(1.0, 8.0) for _ in workers))


def _case(scheduler: str, trace: bool, workers: int, tasks: int) -> measuring.Case:
    def run() -> Mapping[str, float]:
        chosen = CompiledPolicy(EagerEnergy()) if scheduler == "EagerEnergy" else scheduler
        runtime = starpu.Runtime(cpu_workers=workers, scheduler=chosen, trace=trace, watts=_watts)
        return runtime.run(lambda running: Forms(running, tasks).measure())

    return run


def interpreter_ns(calls: int = 200_000) -> dict[str, float]:
    """Nanoseconds of a call from Python: of an empty function, and of a C function that does nothing."""
    lib = starpu.Runtime(cpu_workers=1).lib

    def nothing() -> None:
        pass

    found = {}
    functions = {"empty Python function": nothing, "C function through cffi": lib.dahl_is_simgrid}
    for name, function in functions.items():
        start = time.perf_counter()
        for _ in range(calls):
            function()
        found[name] = (time.perf_counter() - start) / calls * 1e9
    return found


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options(f"Microseconds a task, from {TASKS:,} tasks; the target is {TARGET_US:g}.")
    parser.add_argument("--tasks", type=measuring.positive, default=TASKS, help=f"default {TASKS}")
    parser.add_argument(
        "--workers", type=measuring.positive, default=min(2, measuring.cores()), help="default 2"
    )
    return parser


def main() -> int:
    """Measure, print, record."""
    chosen = _parser().parse_args()
    tasks = -(-chosen.tasks // GRAPH_TASKS) * GRAPH_TASKS
    machine = measuring.Machine()
    cases: dict[str, measuring.Case] = {
        f"{scheduler}, {'traced' if trace else 'no trace'}": _case(scheduler, trace, chosen.workers, tasks)
        for scheduler in ("eager", "lws", "EagerEnergy")
        for trace in (False, True)
    }
    _case("EagerEnergy", True, chosen.workers, GRAPH_TASKS)()  # compiles the policy and the kernel
    found = measuring.alternate({**cases, "interpreter": interpreter_ns}, chosen.rounds)
    calls = found.pop("interpreter")
    forms = list(next(iter(found.values())))
    verdict = {form: all(forms_of[form].median <= TARGET_US for forms_of in found.values()) for form in forms}
    measuring.show(
        f"{tasks:,} empty tasks on {chosen.workers} workers: microseconds a task, {chosen.rounds} rounds",
        ["scheduler", *forms],
        [
            *([case, *(spreads[form].text() for form in forms)] for case, spreads in found.items()),
            [f"at most {TARGET_US:g} us", *("holds" if verdict[form] else "missed" for form in forms)],
        ],
        [
            *(f"{name}: {spread.text(0)} ns a call" for name, spread in calls.items()),
            machine.line(),
        ],
    )
    measuring.record(
        chosen.json,
        "submission",
        machine,
        tasks=tasks,
        workers=chosen.workers,
        us_per_task=found,
        call_ns=calls,
        target_us=TARGET_US,
        target_holds=verdict,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
