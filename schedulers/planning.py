"""Calling a policy's ``plan`` and ``check_machine`` with the records that its other methods see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schedulers.base import PlacementPolicy, PullPolicy
from schedulers.views import CPU, CUDA, READY, SYSTEM, WORKER


def plan_policy(
    policy: PlacementPolicy | PullPolicy,
    kinds: Sequence[Any],
    workers: Sequence[Any],
    base_w: float,
    memory: np.ndarray,
) -> None:
    """Call ``policy.plan(kinds, workers, system, memory)`` where the policy has one.

    ``kinds`` and ``workers`` are ``dahl.starpu``'s TaskKind and WorkerState; the policy gets them as READY records with
    counts, and as WORKER records by kind and worker.
    """
    if not policy.PLANS:
        return
    ready = np.recarray(len(kinds), READY)
    views = np.recarray((len(kinds), len(workers)), WORKER)
    for row, kind in enumerate(kinds):
        ready[row] = (kind.count, row, kind.footprint, 0.0, np.nan, kind.codelet, 0)
        views[row] = _views(workers)
        for name in ("length_s", "energy_j", "can_run"):
            views[name][row] = getattr(kind, name)
    system = _system(workers, base_w, sum(kind.count for kind in kinds))
    planning: Any = policy  # PLANS says that it has the method
    planning.plan(ready, views, system, memory)


def lay_out_for(
    policy: PlacementPolicy | PullPolicy,
    graphs: Sequence[Any],
    links: Any,
    workers: Sequence[Any],
    base_w: float,
    memory: np.ndarray,
) -> None:
    """Call ``policy.lay_out(graphs, links, workers, system, memory)`` where the policy has one.

    ``graphs`` and ``links`` are ``dahl.starpu``'s GraphLayout and LinkTimes; of the workers the policy gets WORKER
    records in which what belongs to a task is NaN.
    """
    if policy.LAYS_OUT:
        planning: Any = policy  # LAYS_OUT says that it has the method
        planning.lay_out(graphs, links, _views(workers), _system(workers, base_w, 0), memory)


def check_machine(policy: PlacementPolicy | PullPolicy, workers: Sequence[Any], base_w: float) -> None:
    """Call ``policy.check_machine(workers, system)`` where the policy has one; it raises ValueError.

    The policy gets WORKER records by worker, in which what belongs to a task is NaN.
    """
    if policy.CHECKS:
        checking: Any = policy  # CHECKS says that it has the method
        checking.check_machine(_views(workers), _system(workers, base_w, 0))


def _views(workers: Sequence[Any]) -> Any:
    """WORKER records of idle workers, with no task; transfers depend on where data will be."""
    views = np.recarray(len(workers), WORKER)
    for state in workers:
        own, watts = state.worker, state.watts
        views[own.id] = (
            np.nan,
            np.nan,
            0.0,
            0.0,
            watts.idle_w,
            watts.busy_w,
            np.nan,
            0,
            0,
            CPU if own.arch == "cpu" else CUDA,
            own.memory_node,
            state.class_number,
            watts.domain,
            0,
        )
    return views


def _system(workers: Sequence[Any], base_w: float, ready_count: int) -> Any:
    """The SYSTEM record of a machine at rest."""
    idle_w = sum(state.watts.idle_w for state in workers)
    system = np.recarray(1, SYSTEM)
    system[0] = (0.0, base_w, idle_w, base_w + idle_w, np.nan, np.nan, ready_count, 0)
    return system[0]
