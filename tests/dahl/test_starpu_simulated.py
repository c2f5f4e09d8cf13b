"""Running a Python function inside a simulation."""

from __future__ import annotations

from tests.dahl.children import child_json, run_child

PREAMBLE = """
import json, sys
import numpy as np
from dahl import starpu
from tests.dahl.run_one_scheduler import NODE
from tests.dahl.starpu_kernels import AFFINE
"""


def test_a_simulated_node_has_the_workers_that_its_description_gives_it() -> None:
    workers = child_json(
        PREAMBLE
        + """
def main(runtime):
    print(json.dumps([(w.arch, w.worker_class, w.memory_node) for w in runtime.workers]))
starpu.Runtime(platform=NODE).run(main)
"""
    )
    assert sorted(workers) == sorted([["cuda", "gpu", 1], ["cuda", "gpu", 2], *[["cpu", "core", 0]] * 6])


def test_simulated_time_is_the_expected_length_of_the_tasks() -> None:
    """Ten dependent tasks of 2 ms on one core: 20 ms, and StarPU's own microseconds for submitting."""
    seconds = child_json(
        PREAMBLE
        + """
def main(runtime):
    work = runtime.codelet("work", AFFINE, model="costs")
    handle = runtime.register(np.zeros(4, np.float32))
    start = runtime.now_s()
    for _ in range(10):
        runtime.submit(work, [handle], AFFINE.pack([(4,)], {"factor": 1, "shift": 1}),
                       costs=starpu.Costs([2e-3], [1e-3]))
    runtime.wait_all()
    print(json.dumps([runtime.now_s() - start, runtime.energy_used_j(), float(handle.array[0])]))
starpu.Runtime(platform=starpu.Platform(name="one", cpu_classes=("core",)), scheduler="eager").run(main)
"""
    )
    assert 0.020 <= seconds[0] <= 0.0202
    assert abs(seconds[1] - 0.010) < 1e-6, "StarPU's own sum of the tasks' joules"
    assert seconds[2] == 0.0, "a simulation ran the kernel"


def test_a_transfer_to_a_gpu_takes_what_the_link_says() -> None:
    """48 MB over 12 GB/s: 4 ms and 8 us, before a task of 1 ms can start on the GPU."""
    starts = child_json(
        PREAMBLE
        + """
def main(runtime):
    work = runtime.codelet("work", AFFINE, arches=("cuda",), model="costs")
    handle = runtime.register(np.zeros(12_000_000, np.float32))
    costs = starpu.Costs([1e-3] * len(runtime.workers), [1e-3] * len(runtime.workers))
    runtime.submit(work, [handle], AFFINE.pack([(12_000_000,)], {"factor": 1, "shift": 1}), costs=costs)
    runtime.wait_all()
    trace = runtime.take_trace()[0]
    print(json.dumps([trace["start_s"] - trace["ready_s"], trace["end_s"] - trace["start_s"]]))
starpu.Runtime(platform=NODE, scheduler="eager").run(main)
"""
    )
    assert 0.004 <= sum(starts) - 0.001 <= 0.0043


def test_memory_that_a_gpu_has_already_is_not_asked_for_again() -> None:
    """A task of 1 ms on a GPU that has no memory yet waits for StarPU's 175 us; small data take microseconds."""
    waited = [
        child_json(
            PREAMBLE
            + f"""
from dataclasses import replace
def main(runtime):
    work = runtime.codelet("work", AFFINE, arches=("cuda",), model="costs")
    handle = runtime.register(np.zeros(4, np.float32))
    costs = starpu.Costs([1e-3] * len(runtime.workers), [1e-3] * len(runtime.workers))
    runtime.submit(work, [handle], AFFINE.pack([(4,)], {{"factor": 1, "shift": 1}}), costs=costs)
    runtime.wait_all()
    trace = runtime.take_trace()[0]
    print(json.dumps(trace["start_s"] - trace["ready_s"]))
starpu.Runtime(platform=replace(NODE, allocated={allocated}), scheduler="eager").run(main)
"""
        )
        for allocated in (False, True)
    ]
    assert 175e-6 <= waited[0] <= 200e-6
    assert waited[1] <= 25e-6


def test_what_main_raises_comes_out_of_the_simulation() -> None:
    done = run_child(
        PREAMBLE
        + """
def main(runtime):
    raise KeyError("from inside")
try:
    starpu.Runtime(platform=NODE).run(main)
except KeyError as error:
    print("caught", error)
try:
    starpu.Runtime(platform=NODE).run(main)
except starpu.AlreadyRunningError as error:
    print("then", error)
"""
    )
    assert "caught 'from inside'" in done.stdout, done.stderr
    assert "then this process has simulated already" in done.stdout


def test_a_task_of_unknown_length_is_refused_before_simgrid_would_exit() -> None:
    done = run_child(
        PREAMBLE
        + """
def main(runtime):
    work = runtime.codelet("work", AFFINE, model="costs")
    for costs in (None, starpu.Costs([float("nan")] * 8, [1.0] * 8)):
        try:
            runtime.submit(work, [runtime.register(np.zeros(4, np.float32))],
                           AFFINE.pack([(4,)], {"factor": 1, "shift": 1}), costs=costs)
        except starpu.CostUnknownError as error:
            print("refused:", error)
    try:
        runtime.submit(runtime.codelet("empty"))
    except starpu.CostUnknownError as error:
        print("refused:", error)
starpu.Runtime(platform=NODE, scheduler="eager").run(main)
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused: the simulation needs length_s of") == 3


def test_too_many_workers_for_a_platform_are_refused() -> None:
    done = run_child(
        PREAMBLE
        + """
try:
    starpu.Runtime(platform=NODE, cpu_workers=9)
except starpu.BadArgumentError as error:
    print(error)
"""
    )
    assert "cpu_workers=9, but platform cpu8_gpu2 has" in done.stdout, done.stderr


def test_a_platform_that_cannot_be_is_named() -> None:
    done = run_child(
        """
from dahl import starpu
link = starpu.Link(bandwidth_bytes_per_s=1e9, latency_s=1e-6)
gpu = starpu.Gpu(worker_class="gpu", memory_bytes=1, link=link)
for make in (
    lambda: starpu.Platform(name="no cores", cpu_classes=("c",)),
    lambda: starpu.Platform(name="x", cpu_classes=()),
    lambda: starpu.Platform(name="x", cpu_classes=("c",), gpus=(gpu, gpu)),
    lambda: starpu.Link(bandwidth_bytes_per_s=-1.0, latency_s=0.0),
    lambda: starpu.Gpu(worker_class="gpu", memory_bytes=0, link=link),
):
    try:
        make()
    except ValueError as error:
        print("refused:", error)
"""
    )
    assert done.stdout.count("refused:") == 5, done.stdout + done.stderr


def test_data_are_taken_in_the_order_of_their_registration_whatever_the_heap_looks_like() -> None:
    """StarPU takes a task's data by the addresses of their handles; holes of the heap must not decide on those."""
    addresses, again = child_json(
        PREAMBLE
        + """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def main(runtime):
    blocks = [libc.malloc(ctypes.c_size_t(2_000 + 997 * (i * i % 61))) for i in range(4_000)]
    for block in blocks[::-2]:
        libc.free(ctypes.c_void_p(block))
    first = [runtime.register(np.zeros(4, np.float32)) for _ in range(300)]
    addresses = [handle.pointer for handle in first]
    for handle in first[::3]:
        handle.unregister()
    second = [runtime.register(np.zeros(4, np.float32)) for _ in range(200)]
    print(json.dumps([addresses, [handle.pointer for handle in second]]))
starpu.Runtime(platform=NODE).run(main)
"""
    )
    assert addresses == sorted(addresses)
    assert again == sorted(again)
    assert addresses[-1] < again[0]
