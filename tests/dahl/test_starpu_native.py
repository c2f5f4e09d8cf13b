"""StarPU driven from Python on real workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dahl import starpu
from tests.dahl.children import child_json
from tests.dahl.starpu_kernels import (
    ADD,
    AFFINE,
    COUNT_UP,
    ENDS,
    REFUSE_NEGATIVE,
    SCALE_BY,
    SPIN,
    TOTAL,
)

WORKERS = min(2, len(os.sched_getaffinity(0)))


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_workers_are_listed_with_arch_and_memory_node() -> None:
    with starpu.Runtime(cpu_workers=1) as runtime:
        (worker,) = runtime.workers
        assert (worker.id, worker.arch, worker.memory_node, worker.worker_class) == (0, "cpu", 0, "cpu")
    assert runtime.workers == ()


Action = tuple[str, int, int]
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["affine", "add"]), st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=25)
@given(ACTIONS)
def test_tasks_give_what_running_them_one_after_the_other_gives(actions: list[Action]) -> None:
    expected = [floats(i + 1, -i) for i in range(4)]
    for kind, source, target in actions:
        if kind == "affine" or source == target:
            expected[target] = expected[target] * np.float32(0.5) + np.float32(source)
        else:
            expected[target] = expected[target] + expected[source]
    with starpu.Runtime(cpu_workers=WORKERS, trace=False) as runtime:
        affine, add = runtime.codelet("affine", AFFINE), runtime.codelet("add", ADD)
        arrays = [floats(i + 1, -i) for i in range(4)]
        handles = [runtime.register(array) for array in arrays]
        for kind, source, target in actions:
            if kind == "affine" or source == target:
                runtime.submit(
                    affine, [handles[target]], AFFINE.pack([(2,)], {"factor": 0.5, "shift": source})
                )
            else:
                runtime.submit(add, [handles[source], handles[target]], ADD.pack([(2,), (2,)], {}))
        runtime.wait_all()
    for array, value in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, value)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_a_repeated_operand_takes_any_number_of_buffers_in_order(count: int) -> None:
    items = [floats(i + 1) for i in range(count)]
    expected = 0.0
    for item in items:
        expected = np.float32(expected * 2 + item[0])
    with starpu.Runtime(cpu_workers=WORKERS) as runtime:
        out = floats(0.0)
        handles = [runtime.register(array) for array in [out, *items]]
        runtime.submit(runtime.codelet("total", TOTAL), handles, TOTAL.pack([(1,), (1,)], {}))
        runtime.wait_all()
        with handles[0].acquire() as array:
            assert array[0] == expected


def test_a_graph_is_submitted_again_with_its_steps_moved_on() -> None:
    with starpu.Runtime(cpu_workers=WORKERS) as runtime:
        handle = runtime.register(floats(0.0))
        graph = runtime.graph()
        args = COUNT_UP.pack([(1,)], {"amount": 3}, scratch_floats=4)
        graph.add(
            runtime.codelet("count_up", COUNT_UP),
            [handle],
            args,
            strides={COUNT_UP.scalar_position("amount"): 10},
        )
        for step in range(3):
            graph.submit(step)
        with handle.acquire() as array:
            assert array[0] == 4 * (3 + 13 + 23)
        assert len(graph) == 1


def test_a_kernel_that_raises_ends_the_run_with_its_error_and_skips_what_follows() -> None:
    after = floats(1.0)
    with starpu.Runtime(cpu_workers=WORKERS) as runtime:
        handle = runtime.register(floats(-1.0))
        refuse = runtime.codelet("refuse_negative", REFUSE_NEGATIVE)
        runtime.submit(refuse, [handle], REFUSE_NEGATIVE.pack([(1,)], {}))
        with pytest.raises(starpu.KernelError, match=r"refuse_negative.*x is negative") as caught:
            runtime.wait_all()
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(starpu.KernelError):
            runtime.submit(
                runtime.codelet("affine", AFFINE),
                [runtime.register(after)],
                AFFINE.pack([(1,)], {"factor": 2, "shift": 0}),
            )
    assert after[0] == 1.0


def test_a_failed_run_leaves_the_next_one_untouched() -> None:
    for value, fails in [(-1.0, True), (1.0, False)]:
        with starpu.Runtime(cpu_workers=1) as runtime:
            refuse = runtime.codelet("refuse_negative", REFUSE_NEGATIVE)
            runtime.submit(refuse, [runtime.register(floats(value))], REFUSE_NEGATIVE.pack([(1,)], {}))
            if fails:
                with pytest.raises(starpu.KernelError):
                    runtime.wait_all()
            else:
                runtime.wait_all()


def test_the_trace_has_every_task_once_with_ordered_times() -> None:
    with starpu.Runtime(cpu_workers=WORKERS) as runtime:
        handle = runtime.register(floats(1.0))
        spin = runtime.codelet("spin", SPIN)
        graph = runtime.graph()
        for tag in range(20):
            graph.add(spin, [handle], SPIN.pack([(1,)], {"loops": 10000}), tag=tag)
        graph.submit()
        runtime.wait_all()
        trace, empty = runtime.take_trace(), runtime.take_trace()
    assert sorted(trace["tag"]) == list(range(20))
    assert sorted(trace["task"]) == list(range(20)), "tasks are numbered in the order of their submission"
    assert empty.size == 0
    for earlier, later in [("submit_s", "ready_s"), ("ready_s", "start_s"), ("start_s", "end_s")]:
        assert (trace[earlier] <= trace[later]).all(), (earlier, later)
    chain = trace[np.argsort(trace["tag"])]
    assert (chain["end_s"][:-1] <= chain["start_s"][1:]).all(), "tasks on one handle overlap"
    assert np.isnan(trace["predicted_s"]).all()


def test_the_trace_is_refused_while_tasks_are_left() -> None:
    with starpu.Runtime(cpu_workers=1) as runtime:
        spin = runtime.codelet("spin", SPIN)
        runtime.submit(spin, [runtime.register(floats(1.0))], SPIN.pack([(1,)], {"loops": 100_000_000}))
        with pytest.raises(starpu.TasksPendingError):
            runtime.take_trace()
        runtime.wait_all()


def test_a_history_model_learns_the_length_of_a_task(tmp_path: Any) -> None:
    with starpu.Runtime(cpu_workers=1, home=tmp_path) as runtime:
        handle = runtime.register(floats(1.0))
        spin = runtime.codelet("spin", SPIN, model="history", symbol="spin_of_the_test")
        assert np.isnan(runtime.expected_length_s(spin, [handle], 0))
        for _ in range(30):
            runtime.submit(spin, [handle], SPIN.pack([(1,)], {"loops": 300_000}))
            runtime.wait_all()
        measured = runtime.take_trace()
        seconds = measured["end_s"] - measured["start_s"]
        expected = runtime.expected_length_s(spin, [handle], 0)
    assert seconds.min() * 0.5 <= expected <= seconds.max() * 2
    assert list((tmp_path / "models").rglob("spin_of_the_test.host")), (
        "the model is not in the folder asked for"
    )


def test_cancelled_tasks_end_at_once() -> None:
    with starpu.Runtime(cpu_workers=1) as runtime:
        handle = runtime.register(floats(1.0))
        spin = runtime.codelet("spin", SPIN)
        for _ in range(1000):
            runtime.submit(spin, [handle], SPIN.pack([(1,)], {"loops": 100_000_000}))
        runtime.cancel()
        with pytest.raises(starpu.CancelledError):
            runtime.wait_all()
        trace = runtime.take_trace()
    assert trace.size == 1000
    assert ((trace["end_s"] - trace["start_s"]) < 0.01).sum() >= 998


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: starpu.Runtime(scheduler="eagre"), starpu.UnknownSchedulerError, "eagre.*dmdas.*eager"),
        (lambda: starpu.Runtime(cpu_workers=4096), starpu.BadArgumentError, "4096.*this machine has"),
        (lambda: starpu.Runtime(cpu_workers=-1), starpu.BadArgumentError, "-1"),
        (lambda: starpu.Runtime(poll_s=-1e-6), starpu.BadArgumentError, "poll_s must be 0 or more.*-1e-06"),
        (lambda: starpu.Kernel("k", print, (starpu.Operand("x", "x", 1),)), ValueError, "'x'"),
        (lambda: starpu.Operand("x", "rw", 1, constant=True), ValueError, "x: a constant is read"),
        (lambda: starpu.Costs([0.0], [1.0]), ValueError, "above 0"),
        (lambda: starpu.Costs([1.0], [1.0, 2.0]), ValueError, "1 lengths but 2 energies"),
    ],
)
def test_a_bad_argument_is_named(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_what_needs_a_running_starpu_says_so() -> None:
    runtime = starpu.Runtime(cpu_workers=1)
    with pytest.raises(starpu.NotRunningError):
        runtime.register(floats(1.0))
    with pytest.raises(starpu.NotRunningError):
        runtime.wait_all()


def test_two_runtimes_at_once_are_refused() -> None:
    with starpu.Runtime(cpu_workers=1):
        with pytest.raises(starpu.AlreadyRunningError), starpu.Runtime(cpu_workers=1):
            pass
        with pytest.raises(ValueError, match="not C-contiguous"):
            starpu.DataHandle(starpu.Runtime(cpu_workers=1), np.zeros((4, 4))[:, ::2])


def test_a_simulation_cannot_be_entered_with_with() -> None:
    # the native library is loaded in this process, so the platform alone is refused already
    platform = starpu.Platform(name="one", cpu_classes=("cpu",))
    with pytest.raises(starpu.VariantError):
        starpu.Runtime(platform=platform)


def test_pausing_and_resuming_lets_tasks_run_again() -> None:
    with starpu.Runtime(cpu_workers=WORKERS) as runtime:
        runtime.pause()
        runtime.resume()
        handle = runtime.register(floats(1.0))
        runtime.submit(
            runtime.codelet("affine", AFFINE), [handle], AFFINE.pack([(1,)], {"factor": 3, "shift": 1})
        )
        with handle.acquire() as array:
            assert array[0] == 4.0


def test_a_memory_mapped_set_of_more_than_four_gigabytes_is_registered(tmp_path: Any) -> None:
    shape = (5_000, 1, 1_000, 1_000)
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(b"\x07")
        file.seek(5_000_000_000 - 1)
        file.write(b"\x09")
    images = np.memmap(path, np.uint8, "r", shape=shape)
    with starpu.Runtime(cpu_workers=1) as runtime:
        out = runtime.register(floats(0.0, 0.0))
        runtime.submit(
            runtime.codelet("ends", ENDS), [runtime.register(images), out], ENDS.pack([shape, (2,)], {})
        )
        with out.acquire() as values:
            np.testing.assert_array_equal(values, [7.0, 9.0])


def test_a_constant_is_passed_by_address_and_needs_no_handle() -> None:
    table = floats(2.0, 3.0, 5.0)
    with starpu.Runtime(cpu_workers=1) as runtime:
        x, codelet = runtime.register(floats(1.0)), runtime.codelet("scale_by", SCALE_BY)
        for index in (0, 2):
            args = SCALE_BY.pack([(3,), (1,)], {"index": index}, constants=[table])
            runtime.submit(codelet, [x], args)
        with x.acquire() as values:
            assert values[0] == 10.0
    with pytest.raises(TypeError, match="scale_by takes 1 constants, got 0"):
        SCALE_BY.pack([(3,), (1,)], {"index": 0})


@pytest.mark.parametrize("poll_s", [0.0, 1e-4, 0.02])
@pytest.mark.parametrize("scheduler", ["eager", "lws", "dmda", "random", "modular-eager"])
def test_tasks_that_come_one_by_one_all_run_however_long_workers_look_for_them(
    scheduler: str, poll_s: float
) -> None:
    with starpu.Runtime(cpu_workers=WORKERS, scheduler=scheduler, poll_s=poll_s) as runtime:
        affine = runtime.codelet("affine", AFFINE, model="history" if scheduler == "dmda" else "none")
        handles = [runtime.register(floats(0.0)) for _ in range(3)]
        for turn in range(60):
            args = AFFINE.pack([(1,)], {"factor": 1, "shift": 1})
            runtime.submit(affine, [handles[turn % 3]], args)
            if turn % 4 == 0:
                runtime.wait_all()
            if turn % 20 == 0:
                time.sleep(0.001)
        for handle in handles:
            with handle.acquire() as values:
                assert values[0] == 20.0


def test_an_argument_block_of_another_dtype_is_refused() -> None:
    with starpu.Runtime(cpu_workers=1) as runtime:
        affine, handle = runtime.codelet("affine", AFFINE), runtime.register(floats(1.0))
        with pytest.raises(TypeError, match=r"args must be the int64 block .* got float64"):
            runtime.submit(affine, [handle], np.zeros(4))


def test_an_unregistered_handle_is_refused() -> None:
    with starpu.Runtime(cpu_workers=1) as runtime:
        affine, handle = runtime.codelet("affine", AFFINE), runtime.register(floats(1.0))
        args = AFFINE.pack([(1,)], {"factor": 1, "shift": 0})
        handle.unregister()
        with pytest.raises(ValueError, match="handle 0 of the task is unregistered"):
            runtime.submit(affine, [handle], args)
        with pytest.raises(ValueError, match="handle 0 of the task is unregistered"):
            runtime.graph().add(affine, [handle], args)


def test_blas_has_one_thread_while_starpu_runs_and_its_own_number_afterwards() -> None:
    threads = child_json(
        """
import json, os
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.pop(name, None)
import numpy as np
from threadpoolctl import threadpool_info
from dahl import starpu

def blas():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

before = blas()
with starpu.Runtime(cpu_workers=1):
    inside = blas()
print(json.dumps([before, inside, blas()]))
"""
    )
    before, inside, after = threads
    assert before == after
    assert before == [len(os.sched_getaffinity(0))] * len(before)
    assert inside == [1] * len(before)
