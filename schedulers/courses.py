"""Random courses of events for a policy: questions, starts and ends on a random machine, no StarPU needed.

A course asks a policy through its C functions, as StarPU's threads do. The same seed is the same course.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, final

import numpy as np

from schedulers.compiled import CompiledPolicy
from schedulers.interpreted import HOOK, PICK, PLACE, InterpretedPolicy
from schedulers.views import CPU, CUDA, READY, SYSTEM, TASK, WORKER

WORKERS, KINDS = 6, 5
"""At most so many workers, and so many kinds of tasks, in one course."""


class AnswerError(AssertionError):
    """A policy raised, or answered what it must not; the message says what it was asked."""


@final
class Entry:
    """The C functions of a policy, called as StarPU's threads call them, with a fresh memory.

    ``memory`` is the policy's own. What the policy raises becomes an AnswerError.
    """

    def __init__(self, wrapped: CompiledPolicy | InterpretedPolicy) -> None:
        self.wrapped = wrapped
        self.memory = np.zeros(wrapped.memory_size())
        self._decide: Any = (PLACE if wrapped.kind == "placement" else PICK)(wrapped.entry())
        self._hooks = {name: HOOK(address) for name, address in wrapped.hooks().items()}

    def place(self, task: np.ndarray, workers: np.ndarray, system: np.ndarray) -> int:
        """Return the placement policy's answer."""
        return self._asked(self._decide, _at(task), _at(workers), workers.size, _at(system))

    def pick(self, worker: int, ready: np.ndarray, workers: np.ndarray, system: np.ndarray) -> int:
        """Return the pull policy's answer."""
        return self._asked(
            self._decide, worker, _at(ready), ready.size, _at(workers), workers.shape[1], _at(system)
        )

    def tell(self, hook: str, task: np.ndarray, worker: int, length_s: float, system: np.ndarray) -> None:
        """Call a hook (``started`` or ``ended``) where the policy has it."""
        if hook in self._hooks:
            function = self._hooks[hook]
            self._call(
                lambda status: function(status, _at(task), worker, length_s, _at(system), *self._own())
            )

    def _own(self) -> tuple[int, int]:
        return _at(self.memory), self.memory.size

    def _asked(self, function: Any, *arguments: int) -> int:
        answer = np.full(1, -1, np.int64)
        self._call(lambda status: function(status, _at(answer), *arguments, *self._own()))
        return int(answer[0])

    def _call(self, function: Any) -> None:
        """Call with a poisoned status, which a policy that raises leaves as it is."""
        status, raised = np.full(1, -1, np.int32), []
        before, sys.unraisablehook = sys.unraisablehook, lambda caught: raised.append(caught.exc_value)
        try:
            with np.errstate(all="ignore"):  # compiled code does not warn of a division by zero either
                function(_at(status))
        finally:
            sys.unraisablehook = before
        if status[0] != 0:
            error = self.wrapped.raised() or next(iter(raised), None)
            raise AnswerError(f"{self.wrapped.name} raised {type(error).__name__}: {error}") from error


def _at(array: np.ndarray) -> int:
    return array.ctypes.data


@final
@dataclass
class Outcome:
    """What came of a course: each answer with the workers by their own numbers, scores, and the memory at the end."""

    answers: list[int] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    memory: np.ndarray = field(default_factory=lambda: np.zeros(0))


@final
class Course:
    """A random machine and what happens on it.

    ``ties`` False gives every worker rates, watts and queues that no other one has. ``unknown`` sets transfers,
    b-levels and live watts to NaN here and there, as StarPU does where it does not know them. Of the figures that a
    policy may need (``NEEDS``) those that are not in ``known`` are NaN throughout.
    """

    def __init__(
        self,
        seed: int,
        *,
        ties: bool = True,
        unknown: bool = True,
        known: Collection[str] = ("length_s", "energy_j", "idle_w", "busy_w"),
        steps: int = 40,
    ) -> None:
        self._seed, self._ties, self._unknown, self._steps = seed, ties, unknown, steps
        draw = np.random.default_rng(seed)
        workers, kinds = int(draw.integers(1, WORKERS + 1)), int(draw.integers(1, KINDS + 1))
        classes = draw.integers(0, 3, workers) if ties else np.arange(workers)
        gpus = draw.random(workers) < 0.4 if not ties else classes == 2
        self.arch = np.where(gpus, CUDA, CPU)
        self.node = np.where(gpus, 1 + np.arange(workers), 0)
        self.worker_class = np.unique(classes, return_inverse=True)[1]  # numbered without gaps
        groups = 3 if ties else workers
        speed = 10 ** draw.uniform(-1, 1, (kinds, groups))
        drawn_w = draw.uniform(5, 50, (2, groups))
        self.base_w = float(draw.uniform(5, 50))
        self.idle_w = drawn_w[0, classes] / 10
        self.busy_w = self.idle_w + drawn_w[1, classes]
        self.length_s = 1e-3 * speed[:, classes]
        self.energy_j = (
            self.length_s * drawn_w[1, classes] * draw.uniform(0.5, 1.5, (kinds, groups))[:, classes]
        )
        able = draw.random((kinds, groups)) < 0.8
        able[np.arange(kinds), draw.choice(classes, kinds)] = True
        self.can_run = able[:, classes]
        self.live_w = bool(draw.random() < 0.5)
        self.told_length_s, self.told_energy_j = (
            np.where(self.can_run & (name in known), figure, np.nan)
            for name, figure in (("length_s", self.length_s), ("energy_j", self.energy_j))
        )
        if "idle_w" not in known:
            self.idle_w, self.base_w = np.full(workers, np.nan), np.nan
        if "busy_w" not in known:
            self.busy_w = np.full(workers, np.nan)

    @property
    def kinds(self) -> int:
        """How many kinds of tasks there are."""
        return len(self.can_run)

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return len(self.arch)

    def order(self) -> np.ndarray:
        """Return a random order of the workers."""
        return np.random.default_rng(self._seed).permutation(self.workers)

    def play(self, wrapped: CompiledPolicy | InterpretedPolicy, order: np.ndarray | None = None) -> Outcome:
        """Play the course to its end; ``order`` lists which worker stands at each place.

        Raises AnswerError where the policy raises, or answers what is no worker or row that can take the task.
        """
        play = _Play(self, Entry(wrapped), np.random.default_rng(self._seed), order)
        play.plan()
        for _ in range(self._steps):
            play.place() if wrapped.kind == "placement" else play.pick()
            play.maybe_end()
        play.outcome.memory = play.entry.memory
        return play.outcome

    def someone_starts(self, wrapped: CompiledPolicy | InterpretedPolicy) -> bool:
        """Whether, on a machine at rest where tasks wait, a pull policy lets a worker take one."""
        play = _Play(self, Entry(wrapped), np.random.default_rng(self._seed), None)
        play.plan()
        ready = play.draw.random(self.kinds) < 0.5
        ready[play.draw.integers(0, self.kinds)] = True
        able = [w for w in range(self.workers) if (self.can_run[:, w] & ready).any()]
        return any(play.pick(worker, ready, at_rest=True) >= 0 for worker in able)


@final
class _Play:
    """A course as it is played to one policy."""

    def __init__(
        self, course: Course, entry: Entry, draw: np.random.Generator, order: np.ndarray | None
    ) -> None:
        self.course, self.entry, self.draw = course, entry, draw
        self.order = np.arange(course.workers) if order is None else order
        self.place_of = np.argsort(self.order)
        self.now_s, self.tasks = 0.0, 0
        self.running: list[tuple[np.ndarray, int, float]] = []
        self.outcome = Outcome()

    def plan(self) -> None:
        """Let the policy plan for a hundred tasks of each kind."""
        course = self.course
        kinds = [
            SimpleNamespace(
                codelet=kind % 3,
                footprint=kind,
                count=100,
                can_run=course.can_run[kind, self.order].tolist(),
                length_s=course.told_length_s[kind, self.order].tolist(),
                energy_j=course.told_energy_j[kind, self.order].tolist(),
            )
            for kind in range(course.kinds)
        ]
        states = [
            SimpleNamespace(
                worker=SimpleNamespace(
                    id=place,
                    arch="cpu" if course.arch[w] == CPU else "cuda",
                    memory_node=int(course.node[w]),
                ),
                class_number=int(course.worker_class[w]),
                watts=SimpleNamespace(
                    idle_w=course.idle_w[w], busy_w=course.busy_w[w], domain=int(course.arch[w])
                ),
            )
            for place, w in enumerate(self.order)
        ]
        self.entry.wrapped.plan(kinds, states, course.base_w, self.entry.memory)

    def place(self) -> None:
        """Ask where a task of a random kind goes."""
        kind = int(self.draw.integers(0, self.course.kinds))
        state = self._state(None, at_rest=False)
        task, workers = self._task(kind), self._workers(kind, state)
        answer = self.entry.place(task, workers, self._system(state, waiting=1))
        if not (0 <= answer < workers.size and workers["can_run"][answer]):
            able = np.flatnonzero(workers["can_run"]).tolist()
            raise AnswerError(
                f"{self.entry.wrapped.name} answered {answer}; the task can run on workers {able}"
            )
        self._keep(int(self.order[answer]), workers)
        self._start(task, int(self.order[answer]), kind)

    def pick(
        self, worker: int | None = None, ready: np.ndarray | None = None, *, at_rest: bool = False
    ) -> int:
        """Ask what an idle worker takes; returns the row, or -1."""
        course = self.course
        if worker is None:
            able = np.flatnonzero(course.can_run.any(axis=0))
            worker = int(self.draw.choice(able))
        kinds = np.flatnonzero(course.can_run[:, worker])
        chance = self.draw.random(kinds.size) < 0.7 if ready is None else ready[kinds]
        kinds = kinds[chance] if chance.any() else kinds[:1]
        state = self._state(worker, at_rest=at_rest)
        rows = self._ready(kinds)
        workers = np.stack([self._workers(int(kind), state) for kind in kinds])
        asker = int(self.place_of[worker])
        answer = self.entry.pick(asker, rows, workers, self._system(state, waiting=int(rows["count"].sum())))
        if not -1 <= answer < len(kinds):
            raise AnswerError(
                f"{self.entry.wrapped.name} answered {answer}; there are {len(kinds)} rows, or -1"
            )
        self._keep(answer, workers)
        if answer >= 0:
            self._start(self._task(int(kinds[answer])), worker, int(kinds[answer]))
        return answer

    def maybe_end(self) -> None:
        """Let time pass, and one of the running tasks end now and then."""
        self.now_s += float(self.draw.exponential(1e-3))
        if self.running and self.draw.random() < 0.6:
            task, worker, length_s = self.running.pop(int(self.draw.integers(0, len(self.running))))
            system = self._system(self._state(None, at_rest=False), waiting=0)
            self.entry.tell("ended", task, int(self.place_of[worker]), length_s, system)

    def _start(self, task: np.ndarray, worker: int, kind: int) -> None:
        length_s = float(self.course.length_s[kind, worker] * self.draw.uniform(0.8, 1.3))
        self.running.append((task, worker, length_s))
        system = self._system(self._state(None, at_rest=False), waiting=0)
        self.entry.tell("started", task, int(self.place_of[worker]), float("nan"), system)

    def _keep(self, answer: int, workers: np.ndarray) -> None:
        self.outcome.answers.append(answer)
        self.outcome.scores.append(workers["score"].copy())

    def _state(self, asker: int | None, *, at_rest: bool) -> np.ndarray:
        """Return how long each worker is still busy, and with how many tasks, by its own number."""
        count, draw = self.course.workers, self.draw
        queued = draw.integers(0, 3, count) if self.course._ties else 1 + draw.permutation(count)
        if at_rest:
            queued[:] = 0
        if asker is not None:
            queued[asker] = 0
        return np.stack([np.where(queued > 0, draw.uniform(1e-4, 1e-2, count), 0.0), queued])

    def _task(self, kind: int) -> np.ndarray:
        self.tasks += 1
        task = np.zeros(1, TASK)
        task[0] = (
            self.tasks,
            kind,
            self.now_s,
            self._b_level_s(),
            kind % 3,
            self.draw.integers(0, 4),
            -1,
            -1,
        )
        return task

    def _ready(self, kinds: np.ndarray) -> np.ndarray:
        rows = np.zeros(kinds.size, READY)
        sequences = self.tasks + self.draw.permutation(kinds.size)
        for row, kind in enumerate(kinds):
            count, waited_s = self.draw.integers(1, 50), self.draw.uniform(0, 1e-2)
            rows[row] = (
                count,
                sequences[row],
                kind,
                self.now_s - waited_s,
                self._b_level_s(),
                kind % 3,
                self.draw.integers(0, 4),
            )
        return rows

    def _workers(self, kind: int, state: np.ndarray) -> np.ndarray:
        """Return the records of the workers in the course's order."""
        course, draw = self.course, self.draw
        can_run = course.can_run[kind]
        transfers_s = np.where(
            np.arange(course.workers + 1) > 0, draw.uniform(0, 2e-3, course.workers + 1), 0.0
        )
        if course._unknown and draw.random() < 0.2:
            transfers_s[draw.random(transfers_s.size) < 0.5] = np.nan
        workers = np.zeros(course.workers, WORKER)
        workers["length_s"] = course.told_length_s[kind]
        workers["energy_j"] = course.told_energy_j[kind]
        workers["transfer_s"] = transfers_s[course.node]
        workers["available_s"], workers["queued"] = state
        workers["idle_w"], workers["busy_w"] = course.idle_w, course.busy_w
        workers["score"] = np.nan
        workers["can_run"], workers["arch"] = can_run, course.arch
        workers["memory_node"], workers["worker_class"] = course.node, course.worker_class
        workers["power_domain"] = course.arch
        return workers[self.order]

    def _system(self, state: np.ndarray, *, waiting: int) -> np.ndarray:
        course, queued = self.course, state[1]
        modelled_w = course.base_w + float(np.where(queued > 0, course.busy_w, course.idle_w).sum())
        live = course.live_w and not (course._unknown and self.draw.random() < 0.1)
        measured_w = modelled_w * self.draw.uniform(0.7, 1.5) if live else np.nan
        age_s = self.draw.uniform(0, 0.2) if live else np.nan
        system = np.zeros(1, SYSTEM)
        idle_w = float(course.idle_w.sum())
        busy = int(queued.sum())
        system[0] = (self.now_s, course.base_w, idle_w, modelled_w, measured_w, age_s, waiting, busy)
        return system

    def _b_level_s(self) -> float:
        unknown = self.course._unknown and self.draw.random() < 0.2
        return float("nan") if unknown else float(self.draw.uniform(1e-3, 1e-1))
