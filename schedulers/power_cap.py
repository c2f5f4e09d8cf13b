"""Hold tasks back while the machine's power would pass a cap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numba

from schedulers.base import PullPolicy
from schedulers.estimates import finish_s
from schedulers.parameters import check_number

_CLOCK_S, _MODELLED_W, _MODELLED_J, _READINGS, _READ_AT_S, _SEEN_S, _SEEN_J, _CORRECTION_W = range(8)
"""Places in the policy's memory."""
_SAME_READING_S = 1e-7
_ROUNDING = 1e-12


@numba.njit(error_model="numpy")
def advance(memory: Any, now_s: float, modelled_w: float) -> None:
    """Add up the joules that the model tells until now; from now on it tells ``modelled_w``."""
    if memory[_CLOCK_S] == 0:
        memory[_SEEN_S] = now_s
    else:
        memory[_MODELLED_J] += memory[_MODELLED_W] * (now_s - memory[_CLOCK_S])
    memory[_CLOCK_S] = now_s
    memory[_MODELLED_W] = modelled_w


@numba.njit(error_model="numpy")
def learn(memory: Any, read_at_s: float, measured_w: float, gain: float) -> None:
    """Move the correction towards what a new reading says; an old one teaches nothing."""
    if memory[_READINGS] > 0 and read_at_s <= memory[_READ_AT_S] + _SAME_READING_S:
        return
    elapsed_s = memory[_CLOCK_S] - memory[_SEEN_S]
    mean_w = memory[_MODELLED_W]
    if elapsed_s > 0:
        mean_w = (memory[_MODELLED_J] - memory[_SEEN_J]) / elapsed_s
    share = gain if memory[_READINGS] > 0 else 1.0
    memory[_CORRECTION_W] += share * (measured_w - mean_w - memory[_CORRECTION_W])
    memory[_READINGS] += 1
    memory[_READ_AT_S] = read_at_s
    memory[_SEEN_S] = memory[_CLOCK_S]
    memory[_SEEN_J] = memory[_MODELLED_J]


@numba.njit(error_model="numpy")
def _cap_w(cap_w: float, cap_share: float, row: Any, system: Any) -> float:
    """The cap in watts; a sum of watts in another order may be the same one."""
    if cap_w == 0:
        cap_w = system.base_w + system.idle_w
        for w in range(len(row)):
            cap_w += cap_share * (row[w].busy_w - row[w].idle_w)
    return cap_w * (1 + _ROUNDING)


@numba.njit(error_model="numpy")
def _added_w(one: Any) -> float:
    """Watts that one more task on a worker adds: a busy worker that queues ahead adds nothing."""
    return one.busy_w - one.idle_w if one.queued == 0 else 0.0


@numba.njit(error_model="numpy")
def _suits_another(worker: int, row: Any, power_w: float, cap_w: float) -> bool:
    """Whether another idle worker fits under the cap and ends the task sooner, or where none fits adds fewer watts.

    Equal ends are told apart by watts, and then by the lower id.
    """
    best, best_s, best_w = worker, finish_s(row[worker]), _added_w(row[worker])
    for w in range(len(row)):
        if not row[w].can_run or row[w].queued > 0:
            continue
        own_s, own_w = finish_s(row[w]), _added_w(row[w])
        row[w].score = power_w + own_w
        fits, best_fits = power_w + own_w <= cap_w, power_w + best_w <= cap_w
        better = fits
        if fits == best_fits:
            sooner, as_soon = fits and own_s < best_s, not fits or own_s == best_s
            better = sooner or (as_soon and (own_w < best_w or (own_w == best_w and w < best)))
        if better:
            best, best_s, best_w = w, own_s, own_w
    return best != worker


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCap(PullPolicy):
    """Let an idle worker take a task only if the machine then stays within the cap.

        power_w + busy_w - idle_w <= cap          cap = cap_w, or where that is 0:
                                                  idle watts + cap_share * (watts with every worker busy - idle watts)

    ``power_w`` is ``modelled_w``, what the running tasks should draw, plus a correction while the last reading is no
    older than ``max_age_s``. Each new reading moves the correction by ``gain`` of the gap left between it and the
    model's mean since the reading before: an integral controller, at rest where the model agrees with the meter.
    So a task that was let in after the last reading counts at once, and one that has ended no longer.

    The oldest task that may run goes first. Of the idle workers that fit under the cap the one that ends it first gets
    it (of equals that of fewer watts, then of the lower id). When nothing runs one task always may, and where none fits
    the worker that adds the fewest watts gets it.
    So by the model the machine exceeds the cap by at most one task's watts, while that is alone; a ``cap_w`` below the
    machine's idle watts, which no schedule keeps, is refused before the first task.
    The decision log's score is the power with the task on that worker.
    Source: power capping by task mapping, Komoda et al., ICCD 2013; this admission rule and correction are this
    project's.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("length_s", "idle_w", "busy_w")
    HOOKS: ClassVar[tuple[str, ...]] = ("task_ended",)
    CHECKS: ClassVar[bool] = True

    cap_w: float = 0.0
    """Watts of the whole machine that tasks must not push it over, >= 0. 0: ``cap_share`` tells the cap."""
    cap_share: float = 0.5
    """Where the cap lies between the machine's idle watts and those with every worker busy, 0 to 1."""
    max_age_s: float = 1.0
    """Age beyond which a reading is not trusted, > 0; the model alone counts then."""
    gain: float = 0.5
    """Share of the gap that the correction takes up at each reading, in (0, 1]."""

    def __post_init__(self) -> None:
        check_number("cap_w", self.cap_w, at_least=0)
        check_number("cap_share", self.cap_share, at_least=0, at_most=1)
        check_number("max_age_s", self.max_age_s, above=0)
        check_number("gain", self.gain, above=0, at_most=1)

    def check_machine(self, workers: Any, system: Any) -> None:
        """Refuse a cap that the machine exceeds with nothing running."""
        idle_w = system.base_w + system.idle_w
        if 0 < self.cap_w < idle_w:
            raise ValueError(
                f"cap_w={self.cap_w:g} is below the {idle_w:g} W that the machine draws with nothing running: "
                "give more, or cap_w=0 and a cap_share"
            )

    def pick(self, worker: int, ready: Any, workers: Any, system: Any, memory: Any) -> int:
        """Return the oldest row that this worker may take, or -1."""
        advance(memory, system.now_s, system.modelled_w)
        power_w = system.modelled_w
        if system.measured_w >= 0 and system.measured_age_s <= self.max_age_s:  # NaN where there is no meter
            learn(memory, system.now_s - system.measured_age_s, system.measured_w, self.gain)
            power_w += memory[_CORRECTION_W]
        cap_w = _cap_w(self.cap_w, self.cap_share, workers[0], system)
        chosen, chosen_added_w = -1, 0.0
        for row in range(len(ready)):
            if chosen >= 0 and ready[row].sequence > ready[chosen].sequence:
                continue
            added_w = _added_w(workers[row, worker])
            may = power_w + added_w <= cap_w or system.running_count == 0
            if may and not _suits_another(worker, workers[row], power_w, cap_w):
                chosen, chosen_added_w = row, added_w
        memory[_MODELLED_W] += chosen_added_w
        return chosen

    def task_ended(self, task: Any, worker: int, length_s: float, system: Any, memory: Any) -> None:
        """Note from when on the model tells less."""
        advance(memory, system.now_s, system.modelled_w)
