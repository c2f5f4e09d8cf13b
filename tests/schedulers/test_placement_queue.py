"""In which order a worker runs what a placement policy has given it."""

from __future__ import annotations

from tests.dahl.children import child_json

PREAMBLE = """
import json
from pathlib import Path
import numpy as np
from dahl import starpu
from schedulers import CompiledPolicy
from tests.dahl.run_one_scheduler import NODE
from tests.dahl.starpu_kernels import ADD, AFFINE
from tests.schedulers.policies import Always, EarliestFinish, LastPlaceFirst

ONE = starpu.Platform(name="one", cpu_classes=("core",))
watts = lambda workers: starpu.MachineWatts(1.0, tuple(starpu.WorkerWatts(1.0, 2.0) for _ in workers))

def order(policy, tasks, platform=ONE, rounds=1):
    '''Tags by start. A task: (handle, ms, priority, handles read, arch).'''
    def main(runtime):
        handles = [runtime.register(np.zeros(size, np.float32)) for size in sizes]
        codelets = {}
        graph = runtime.graph()
        for tag, (handle, ms, priority, read, arches) in enumerate(tasks):
            kernel = ADD if read else AFFINE
            key = kernel.name, arches
            if key not in codelets:
                codelets[key] = runtime.codelet("-".join(key), kernel, arches=(arches,), model="costs")
            used = [handles[at] for at in (*read, handle)]
            shapes = [(one.array.size,) for one in used]
            args = ADD.pack(shapes, {}) if read else AFFINE.pack(shapes, {"factor": 1, "shift": 1})
            cost = starpu.Costs([ms * 1e-3] * len(runtime.workers), [1e-3] * len(runtime.workers))
            graph.add(codelets[key], used, args, costs=cost, priority=priority, tag=tag)
        for _ in range(rounds):
            graph.submit()
        runtime.wait_all()
        trace = runtime.take_trace()
        print(json.dumps(trace["tag"][np.argsort(trace["start_s"])].tolist()))
    starpu.Runtime(platform=platform, scheduler=CompiledPolicy(policy), watts=watts).run(main)
"""


def test_the_priority_decides_then_the_age() -> None:
    """Task 0 keeps the worker busy. Of the others 4 has priority; 5 waits for it and is the last to become ready."""
    assert child_json(
        PREAMBLE
        + """
sizes = [4] * 6
free = lambda handle, priority=0: (handle, 2, priority, (), "cpu")
order(Always(answer=0), [free(0, 9), free(1), free(2), free(3), free(4, 1), (5, 9, 0, (4,), "cpu")])
"""
    ) == [0, 4, 1, 2, 3, 5]


def test_a_policys_rank_decides_within_one_submission() -> None:
    """The second submission is written to other data by nobody: it waits for the first, task by task."""
    assert child_json(
        PREAMBLE
        + """
sizes = [4] * 3
order(LastPlaceFirst(), [(at, 2, 0, (), "cpu") for at in range(3)], rounds=2)
""",
    )[-3:] == [2, 1, 0]


def test_of_equal_tasks_a_gpu_takes_that_of_which_the_data_are_there() -> None:
    """120 MB take 10 ms over the link: task 1, which reads them, is older than task 2 but runs after it."""
    assert child_json(
        PREAMBLE
        + """
sizes = [30_000_000, 4, 4, 4, 4, 4, 4]
blockers = [(at, 1, 0, (), "cuda") for at in (1, 2, 3)]
order(Always(answer=0), [*blockers, (4, 1, 0, (0,), "cuda"), (5, 1, 0, (6,), "cuda")], platform=NODE)
"""
    ) == [0, 1, 2, 4, 3]
