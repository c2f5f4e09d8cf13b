"""HeteroPrio on energy ratios: each class takes first what it does for the fewest joules beside the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numba
import numpy as np

from schedulers.base import PullPolicy
from schedulers.parameters import check_number

CLASSES = 512
"""memory[class] counts its workers; memory[CLASSES + class] adds up seconds of what they have and of what is ready."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HeteroEnergy(PullPolicy):
    """Take the kind whose joules elsewhere are the largest multiple of those here, unless that makes the end later.

    Kinds of ready tasks are ranked by ``e_elsewhere / e_here``, where elsewhere is the cheapest other worker class; the
    oldest goes first among equals. A task's joules are its own and its worker's share of the machine's idle watts,

        e = energy_j + length_s * (base_w + idle_w) / workers

    so that a worker is not thrifty for being slow. With one class of CPUs and one of GPUs this is HeteroPrio's queue
    sorted by ``e_cpu / e_gpu``: GPUs take from one end and CPUs from the other. On a machine of one class it is first
    in, first out.

    HeteroPrio restarts a task on the fast class when a slow worker would end it last (spoliation), which StarPU cannot
    do. So a worker leaves a task to a faster class if that one could work off everything that is ready sooner:

        transfer_s + length_here > end_slack * (mean available_s + ready work / workers)   of the faster class

    and, which HeteroPrio does not, any task that takes more than ``max_ratio`` times the joules of its cheapest class.
    Of the classes within ``max_ratio`` the fastest never declines, so no task starves.
    Sources: Agullo et al., Concurrency and Computation: Practice and Experience 2016; Beaumont et al., IPDPS 2017
    (HeteroPrio, on ratios of time).
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("length_s", "energy_j", "idle_w")

    end_slack: float = 1.0
    """Multiple of the faster class's end up to which a slower worker takes a task, >= 0. Infinite: plain HeteroPrio."""
    max_ratio: float = 1.2
    """Most joules of a task as a multiple of those on its cheapest class, >= 1. Infinite: plain HeteroPrio."""

    def __post_init__(self) -> None:
        check_number("end_slack", self.end_slack, at_least=0)
        check_number("max_ratio", self.max_ratio, at_least=1)

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the row that suits this worker best, or -1."""
        share_w = (system.base_w + system.idle_w) / workers.shape[1]
        _sum_work(ready, workers, memory)
        chosen, best = -1, 0.0
        for row in range(len(ready)):
            ratio = _advantage(worker, workers[row], share_w)
            workers[row, worker].score = ratio
            older = chosen >= 0 and ready[row].sequence < ready[chosen].sequence
            better = chosen < 0 or ratio > best or (ratio == best and older)
            most_j = self.max_ratio * _cheapest_j(workers[row], share_w)
            if not better or _whole_j(workers[row, worker], share_w) > most_j:
                continue
            if not _ends_later(worker, workers[row], most_j, share_w, self.end_slack, memory):
                chosen, best = row, ratio
        return chosen


@numba.njit
def _sum_work(ready: Any, workers: Any, memory: Any) -> None:
    for other in range(workers.shape[1]):
        memory[workers[0, other].worker_class] = 0.0
        memory[CLASSES + workers[0, other].worker_class] = 0.0
    for other in range(workers.shape[1]):
        memory[workers[0, other].worker_class] += 1.0
        memory[CLASSES + workers[0, other].worker_class] += workers[0, other].available_s
    for row in range(len(ready)):
        for other in range(workers.shape[1]):
            if workers[row, other].can_run:
                c = workers[row, other].worker_class
                # Each worker adds its share, so that the class counts the row once.
                memory[CLASSES + c] += ready[row].count * workers[row, other].length_s / memory[c]


@numba.njit
def _whole_j(one: Any, share_w: float) -> float:
    """Joules of the task on a worker with its share of the machine's idle watts."""
    return one.energy_j + one.length_s * share_w


@numba.njit
def _advantage(worker: int, row: Any, share_w: float) -> float:
    """Joules on the cheapest other class over those here; infinite where no other class can run it."""
    elsewhere_j = -1.0
    for other in range(len(row)):
        if not row[other].can_run or row[other].worker_class == row[worker].worker_class:
            continue
        there_j = _whole_j(row[other], share_w)
        if elsewhere_j < 0 or there_j < elsewhere_j:
            elsewhere_j = there_j
    here_j = _whole_j(row[worker], share_w)
    return elsewhere_j / here_j if elsewhere_j >= 0 and here_j > 0 else np.inf


@numba.njit
def _cheapest_j(row: Any, share_w: float) -> float:
    cheapest_j = np.inf
    for other in range(len(row)):
        if row[other].can_run:
            cheapest_j = min(cheapest_j, _whole_j(row[other], share_w))
    return cheapest_j


@numba.njit
def _ends_later(worker: int, row: Any, most_j: float, share_w: float, end_slack: float, memory: Any) -> bool:
    """Whether a faster class that takes it could be done with all that is ready before this worker is with one task."""
    here_s = row[worker].transfer_s + row[worker].length_s
    for other in range(len(row)):
        c = row[other].worker_class
        if not row[other].can_run or c == row[worker].worker_class or _whole_j(row[other], share_w) > most_j:
            continue
        faster = row[other].length_s < row[worker].length_s
        if faster and here_s > end_slack * memory[CLASSES + c] / memory[c]:
            return True
    return False
