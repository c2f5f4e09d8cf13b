"""Graphs that workers submit."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from dahl import starpu
from tests.dahl.starpu_kernels import AFFINE, COUNT_UP, REFUSE_NEGATIVE, SPIN
from tests.dahl.trainers import synthetic, training

WORKERS = min(2, len(os.sched_getaffinity(0)))


def affine(x: starpu.DataHandle, codelet: starpu.Codelet, graph: starpu.TaskGraph, *values: float) -> None:
    factor, shift = values
    graph.add(codelet, [x], AFFINE.pack([(1,)], {"factor": factor, "shift": shift}))


@pytest.mark.parametrize("scheduler", ["eager", "lws", "dmda"])
@pytest.mark.parametrize("workers", range(1, WORKERS + 1))
@pytest.mark.parametrize("poll_s", [0, 50e-6])
@pytest.mark.parametrize("at_most", [1, 6])
def test_graphs_run_in_the_order_of_the_list(
    scheduler: str, workers: int, poll_s: float, at_most: int
) -> None:
    """x -> x / 2 + 1 and x -> 3 - x in a made-up order; nobody else submits anything."""
    which = np.random.default_rng(0).integers(0, 2, 200)
    expected = np.float32(1.0)
    for kind in which:
        expected = np.float32(expected * 0.5 + 1.0 if kind == 0 else expected * -1.0 + 3.0)
    with starpu.Runtime(cpu_workers=workers, scheduler=scheduler, poll_s=poll_s, trace=False) as runtime:
        codelet = runtime.codelet("affine", AFFINE)
        x = runtime.register(np.ones(1, np.float32))
        halve, flip = runtime.graph(), runtime.graph()
        affine(x, codelet, halve, 0.5, 1.0)
        affine(x, codelet, flip, -1.0, 3.0)
        seen: list[int] = []
        runtime.feed([halve, flip], which, which * 0, at_most=at_most, on_progress=seen.append)
        runtime.wait_all()
        with x.acquire("r") as values:
            assert values[0] == expected
        assert seen[-1] == 200


def test_steps_move_the_arguments() -> None:
    with starpu.Runtime(cpu_workers=1) as runtime:
        codelet = runtime.codelet("count_up", COUNT_UP)
        x = runtime.register(np.zeros(1, np.float32))
        graph = runtime.graph()
        args = COUNT_UP.pack([(1,)], {"amount": 0}, scratch_floats=1)
        graph.add(codelet, [x], args, strides={COUNT_UP.scalar_position("amount"): 1})
        steps = np.arange(100)
        runtime.feed([graph], steps * 0, steps, at_most=4, on_progress=lambda submitted: None)
        runtime.wait_all()
        with x.acquire("r") as values:
            assert values[0] == steps.sum()


def test_no_more_tasks_are_ahead_than_asked_for() -> None:
    """A task is submitted only once its predecessor by so many has ended."""
    with starpu.Runtime(cpu_workers=WORKERS) as runtime:
        codelet = runtime.codelet("spin", SPIN)
        graph = runtime.graph()
        for _ in range(2):
            x = runtime.register(np.zeros(1, np.float32))
            graph.add(codelet, [x], SPIN.pack([(1,)], {"loops": 20_000}))
        zeros = np.zeros(100, np.int64)
        runtime.feed([graph], zeros, zeros, at_most=6, on_progress=lambda submitted: None)
        runtime.wait_all()
        trace = runtime.take_trace()
        trace = trace[np.argsort(trace["task"])]
        ends = np.sort(trace["end_s"])
        assert trace.size == 200
        # Pairs are submitted while at most 5 are unfinished: of the i before it, i - 5 have ended.
        assert (trace["submit_s"][6::2] >= ends[:-6:2]).all()


def test_a_kernel_that_raises_ends_the_list() -> None:
    with starpu.Runtime(cpu_workers=WORKERS) as runtime:
        codelet = runtime.codelet("refuse_negative", REFUSE_NEGATIVE)
        x = runtime.register(np.full(1, -1, np.float32))
        graph = runtime.graph()
        graph.add(codelet, [x], REFUSE_NEGATIVE.pack([(1,)], {}))
        zeros = np.zeros(1000, np.int64)
        with pytest.raises(starpu.KernelError, match="x is negative"):
            runtime.feed([graph], zeros, zeros, at_most=4, on_progress=lambda submitted: None)


def test_a_cancelled_list_ends_and_so_does_one_whose_caller_raises() -> None:
    def stop(submitted: int) -> None:
        raise KeyboardInterrupt

    for end in (stop, None):
        with starpu.Runtime(cpu_workers=WORKERS) as runtime:
            codelet = runtime.codelet("spin", SPIN)
            x = runtime.register(np.zeros(1, np.float32))
            graph = runtime.graph()
            graph.add(codelet, [x], SPIN.pack([(1,)], {"loops": 100_000}))
            zeros = np.zeros(100_000, np.int64)
            how: dict[str, Any] = {"at_most": 4, "every_s": 0.01}
            with pytest.raises(KeyboardInterrupt if end else starpu.CancelledError):
                runtime.feed([graph], zeros, zeros, on_progress=end or (lambda n: runtime.cancel()), **how)
            if end:
                runtime.wait_all()
                assert runtime.take_trace().size < 100_000


@pytest.mark.skipif(WORKERS < 2, reason="needs two cores")
def test_training_is_fed_where_every_core_has_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one of two cores free, or one tile for two workers, the thread that trains submits."""
    fed: list[int] = []
    feed = starpu.Runtime.feed

    def counted(runtime: starpu.Runtime, *args: Any, **named: Any) -> None:
        fed.append(len(runtime.workers))
        feed(runtime, *args, **named)

    monkeypatch.setattr(starpu.Runtime, "feed", counted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    for workers, tile, expected in ((2, 16, 2), (1, 16, 0), (2, 64, 0)):
        fed.clear()
        with training(synthetic(train_size=200), fuse=True, workers=workers, batch_size=64, tile=tile) as (
            trainer,
            _,
        ):
            trainer.run_epoch(1)
            trainer.evaluate()
        assert len(fed) == expected
