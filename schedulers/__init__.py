"""Scheduling policies, one file each, and StarPU's own by name."""

from schedulers.base import PlacementPolicy, PullPolicy
from schedulers.compiled import CompiledPolicy, PolicyCompileError
from schedulers.eager_energy import EagerEnergy
from schedulers.interpreted import InterpretedPolicy
from schedulers.starpu import StarPUScheduler

__all__ = [
    "CompiledPolicy",
    "EagerEnergy",
    "InterpretedPolicy",
    "PlacementPolicy",
    "PolicyCompileError",
    "PullPolicy",
    "StarPUScheduler",
]
