"""One kind of task on all workers at once, and nothing beside it, for as long as the counters need to resolve it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dahl import starpu
from dahl.tensor import aligned_empty
from energy import EnergySession, PowerModel

PERIODS = 20
"""A burst lasts at least so many periods of the slowest counter: 5 % of its joules, at most, are of its edges."""

BURSTS = 5
SHORTEST_BURST_S = 0.1
RELATIVE_ERROR = 0.05
CHAIN_TASKS = 32
"""Tasks of each worker that one submission adds."""

COMPONENTS = {"cpu": ("package", "dram", "board"), "cuda": ("gpu", "board")}
"""What the tasks of an architecture draw from."""


@dataclass(frozen=True)
class Burst:
    """What a stretch of tasks of one kind took."""

    seconds: float
    busy_s: float
    """Of all workers together."""
    lengths_s: np.ndarray
    joules: float
    """Above the idle machine, over the counters that its workers draw from; NaN where a reading was missing."""
    bound_j: float

    def idle_worker_s(self, workers: int) -> float:
        """Seconds in which a worker was awake, or asleep, without a task."""
        return max(0.0, workers * self.seconds - self.busy_s)


@dataclass(frozen=True)
class Alone:
    """A kind of task by itself: the lengths of its tasks and the watts of a worker that is busy with it."""

    lengths_s: np.ndarray
    watts: float
    watts_low: float
    watts_high: float

    @property
    def resolved(self) -> bool:
        """Whether the interval of the watts is within 5 %."""
        return (
            math.isfinite(self.watts) and self.watts_high - self.watts_low <= 2 * RELATIVE_ERROR * self.watts
        )


class TaskRunner:
    """Runs kinds of task alone. `session` is open; its idle watts are those of the paused machine.

    `tell` hears the name of what is to run next, before its first task.
    """

    def __init__(
        self,
        runtime: starpu.Runtime,
        session: EnergySession,
        limit_s: float,
        tell: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._runtime, self._session, self._limit_s, self._tell = runtime, session, limit_s, tell
        archs = {worker.arch for worker in runtime.workers}
        wanted = {component for arch in archs for component in COMPONENTS[arch]}
        self.channels = [
            name
            for name, channel in session.channels.items()
            if channel.in_total and channel.component in wanted
        ]
        self._period_s = max((session.channels[name].period_s for name in self.channels), default=0.0)
        self.runtime_w = math.nan
        """Watts of a worker that has no task while others are submitted and shared out."""

    @property
    def measures(self) -> bool:
        """Whether there is a counter of what the workers draw."""
        return bool(self.channels)

    @property
    def burst_s(self) -> float:
        """How long a burst lasts at least."""
        return max(PERIODS * self._period_s, SHORTEST_BURST_S)

    def measure_runtime(self) -> None:
        """Measure what the runtime itself draws, with tasks that do nothing."""
        if not self.measures:
            return
        self._tell("")
        empty = self._runtime.codelet("nothing")
        graph = self._runtime.graph()
        for _ in range(CHAIN_TASKS * len(self._runtime.workers)):
            graph.add(empty)
        bursts = [self._burst(graph, self.burst_s) for _ in range(BURSTS)]
        idle_s = sum(burst.idle_worker_s(len(self._runtime.workers)) for burst in bursts)
        self.runtime_w = max(0.0, sum(burst.joules for burst in bursts) / idle_s)

    def measure(self, name: str, task: starpu.RecordedTask) -> Alone:
        """Run a task again and again, one copy of what it writes for each worker."""
        self._tell(name)
        graph, copies = self._copies(task)
        try:
            self._burst(graph, 0.0)  # caches are cold, memory is not there yet
            bursts = [self._burst(graph, min(self.burst_s, self._limit_s))]
            spent_s, length_s = bursts[0].seconds, self.burst_s
            while not self._enough(bursts) and spent_s < self._limit_s:
                bursts.append(self._burst(graph, min(length_s, self._limit_s - spent_s)))
                spent_s += bursts[-1].seconds
                if len(bursts) >= BURSTS:
                    length_s *= 2
        finally:
            for handle in copies:
                handle.unregister()
        return self.alone(bursts)

    def _enough(self, bursts: Sequence[Burst]) -> bool:
        if not self.measures:
            return len(bursts) >= 2
        return len(bursts) >= BURSTS and self.alone(bursts).resolved

    def alone(self, bursts: Sequence[Burst]) -> Alone:
        """The watts that a kind's bursts give, without what the runtime draws; their interval by a bootstrap."""
        lengths_s = np.concatenate([burst.lengths_s for burst in bursts])
        if not self.measures:
            return Alone(lengths_s, math.nan, math.nan, math.nan)
        workers = len(self._runtime.workers)
        joules = np.array([b.joules - self.runtime_w * b.idle_worker_s(workers) for b in bursts])
        busy_s = np.array([burst.busy_s for burst in bursts])
        watts = max(0.0, float(joules.sum() / busy_s.sum()))
        draw = np.random.default_rng(0).integers(0, len(bursts), (200, len(bursts)))
        drawn_w = joules[draw].sum(axis=1) / busy_s[draw].sum(axis=1)
        bound_w = float(sum(burst.bound_j for burst in bursts) / busy_s.sum())
        if not math.isfinite(watts):
            return Alone(lengths_s, math.nan, math.nan, math.nan)
        low_w, high_w = np.percentile(drawn_w, [2.5, 97.5])
        return Alone(
            lengths_s, watts, min(float(low_w), watts - bound_w), max(float(high_w), watts + bound_w)
        )

    def _burst(self, graph: starpu.TaskGraph, at_least_s: float) -> Burst:
        """Submit the graph until so many seconds have passed, never more than two ahead."""
        runtime = self._runtime
        runtime.take_trace()
        start, start_s = self._session.snapshot(), runtime.now_s()
        while True:
            graph.submit()
            runtime.wait_submitted(len(graph))
            if runtime.now_s() - start_s >= at_least_s:
                break
        runtime.wait_all()
        end, end_s = self._session.snapshot(), runtime.now_s()
        trace = runtime.take_trace()
        lengths_s = trace["end_s"] - trace["start_s"]
        joules = bound_j = 0.0
        counted = self._session.between(start, end)
        for name in self.channels:
            found = counted[name]
            idle_w = self._session.idle_w.get(name, math.nan)
            joules += math.nan if found.joules is None else found.joules - idle_w * found.seconds
            bound_j += math.nan if found.bound_j is None else found.bound_j
        return Burst(end_s - start_s, float(lengths_s.sum()), lengths_s, joules, bound_j)

    def _copies(self, task: starpu.RecordedTask) -> tuple[starpu.TaskGraph, list[starpu.DataHandle]]:
        """A graph of chains of the task, one for each worker: what it writes is each chain's own."""
        runtime, codelet = self._runtime, task.codelet
        graph, own = runtime.graph(), []
        chains: list[list[starpu.DataHandle]] = [[] for _ in runtime.workers]
        for handles in chains:
            for at, handle in enumerate(task.handles):
                if codelet.mode(at) == "r":
                    handles.append(handle)
                    continue
                array = aligned_empty(handle.array.shape, handle.array.dtype)
                array[...] = handle.array
                handles.append(runtime.register(array))
                own.append(handles[-1])
        for _ in range(CHAIN_TASKS):
            for handles in chains:
                graph.add(codelet, handles, task.args, footprint=task.footprint)
        return graph, own


def model_watts(model: PowerModel, operation: str, worker: int) -> float:
    """What the power model says of a worker that is busy with an operation, above idle."""
    own = model.workers[worker]
    return float(own.busy_w_by_codelet.get(operation, own.busy_w) - own.idle_w)
