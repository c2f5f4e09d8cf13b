"""The policy under which tasks are measured where workers differ: each class of them gets its share of each kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from schedulers import PlacementPolicy
from schedulers.base import MEMORY_FLOATS

KINDS = MEMORY_FLOATS


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EveryClass(PlacementPolicy):
    """Take the classes of workers in turn, for each kind of task by itself, and of a class the shortest queue.

    It needs no expectations. memory[kind] counts the tasks of a kind so far.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ()

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the worker with the shortest queue of the class whose turn it is."""
        classes = 0
        for w in range(len(workers)):
            classes = max(classes, workers[w].worker_class + 1)
        kind = task.footprint % KINDS
        turn = int(memory[kind]) % classes
        memory[kind] += 1.0
        best, best_distance = -1, 0
        for w in range(len(workers)):
            if not workers[w].can_run:
                continue
            # A class that cannot run the task leaves its turn to the next one.
            distance = (workers[w].worker_class + classes - turn) % classes
            shorter = distance == best_distance and workers[w].queued < workers[best].queued
            if best < 0 or distance < best_distance or shorter:
                best, best_distance = w, distance
        return best
