"""Calling a policy's ``plan`` with the records that its other methods see."""

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
        for state in workers:
            own, watts = state.worker, state.watts
            views[row, own.id] = (
                kind.length_s[own.id],
                kind.energy_j[own.id],
                0.0,  # transfers depend on where data will be
                0.0,
                watts.idle_w,
                watts.busy_w,
                np.nan,
                0,
                kind.can_run[own.id],
                CPU if own.arch == "cpu" else CUDA,
                own.memory_node,
                state.class_number,
                watts.domain,
                0,
            )
    idle_w = sum(state.watts.idle_w for state in workers)
    total = sum(kind.count for kind in kinds)
    system = np.recarray(1, SYSTEM)
    system[0] = (0.0, base_w, idle_w, base_w + idle_w, np.nan, np.nan, total, 0)
    policy.plan(ready, views, system[0], memory)  # type: ignore[union-attr]
