"""Follow a schedule of the whole graph that is looked for before its first task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numba
import numpy as np

from schedulers.base import MEMORY_FLOATS, PlacementPolicy
from schedulers.estimates import finish_s
from schedulers.list_schedule import list_problem, search_list
from schedulers.parameters import check_number

GRAPHS = 0
"""memory[GRAPHS]: how many graphs have a plan; then of each its number, where its plan begins, and its tasks."""
MAX_GRAPHS, HEADER = 64, 3
PLANS = 1 + MAX_GRAPHS * HEADER
"""From here on worker and rank of each task."""
MAX_TASKS = 4096
"""Longer graphs are not planned."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAhead(PlacementPolicy):
    """Run each task of a recorded graph on the worker, and in the order, of the best schedule found for all of it.

    Before the first epoch changes are tried on a list schedule until ``effort`` tasks were timed, once for the least
    makespan T and once for the fewest joules within ``max_slowdown * T``:

        sum of energy_j + (base_w + idle_w) * makespan

    ``schedulers.list_schedule`` says what a schedule is held to take, by the expected lengths, joules and links. A
    graph that repeats is timed three times in a row: its data are where the one before has left them.
    Tasks without a plan (evaluation, single tasks, graphs of more than 4096 tasks) go where they end first.
    Sources: the start is HEFT (Topcuoglu et al., TPDS 13(3), 2002) with a price on joules; slack that a deadline leaves
    goes to cheaper workers as in Zhou and Zheng, J. Appl. Math. 2014:370917; annealing is this project's choice.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("length_s", "energy_j", "idle_w")
    LAYS_OUT: ClassVar[bool] = True

    max_slowdown: float = 1.2
    """Latest end of the schedule as a multiple of the least makespan found, >= 1; infinite: no deadline."""
    effort: int = 600000
    """How many tasks are timed for each of the two aims, 0 to 1e9: some millions a second, while the machine waits."""

    def __post_init__(self) -> None:
        check_number("max_slowdown", self.max_slowdown, at_least=1)
        check_number("effort", self.effort, at_least=0, at_most=1e9)

    def lay_out(self, graphs: Any, links: Any, workers: Any, system: Any, memory: Any) -> None:
        """Look for the plans of these graphs, unless they are there."""
        for graph in graphs:
            if len(graph.kinds) <= MAX_TASKS and plan_row(memory, graph.number, 0) < 0:
                _keep_plan(self, graph, links, workers, system, memory)

    def place(self, task: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the planned worker; without a plan the one that ends the task first."""
        row = plan_row(memory, task.graph, task.place)
        if row >= 0 and workers[int(memory[row])].can_run:
            planned = int(memory[row])
            workers[planned].rank = int(memory[row + 1])
            return planned
        chosen = -1
        for w in range(len(workers)):
            if workers[w].can_run:
                workers[w].score = finish_s(workers[w])
                if chosen < 0 or workers[w].score < workers[chosen].score:
                    chosen = w
        return chosen


@numba.njit
def plan_row(memory: Any, graph: int, place: int) -> int:
    """Return where in memory worker and rank of a task stand, or -1 without a plan."""
    for g in range(int(memory[GRAPHS])):
        at = 1 + g * HEADER
        if memory[at] == graph and 0 <= place < memory[at + 2]:
            return int(memory[at + 1]) + 2 * place
    return -1


def _keep_plan(policy: PlanAhead, graph: Any, links: Any, workers: Any, system: Any, memory: Any) -> None:
    """Look for the plan of a graph and put it into memory, as long as there is room."""
    count, known = len(graph.kinds), int(memory[GRAPHS])
    first = PLANS if known == 0 else int(memory[1 + (known - 1) * HEADER + 1 : 1 + known * HEADER] @ [1, 2])
    if known == MAX_GRAPHS or first + 2 * count > MEMORY_FLOATS:
        return
    problem = list_problem(graph, links, workers["memory_node"])
    static_w = float(system.base_w + system.idle_w)
    found = search_list(problem, static_w, policy.max_slowdown, policy.effort // len(problem.waits))
    memory[1 + known * HEADER : 1 + (known + 1) * HEADER] = graph.number, first, count
    memory[first : first + 2 * count] = np.column_stack([found.place, found.rank]).ravel()
    memory[GRAPHS] = known + 1
