"""Scheduling policies, one file each, and StarPU's own by name."""

from schedulers.base import PlacementPolicy, PullPolicy
from schedulers.compiled import CompiledPolicy, PolicyCompileError
from schedulers.eager_energy import EagerEnergy
from schedulers.erase import Erase
from schedulers.hetero_energy import HeteroEnergy
from schedulers.interpreted import InterpretedPolicy
from schedulers.lp_quota import LpQuota
from schedulers.park import Park
from schedulers.starpu import StarPUScheduler

__all__ = [
    "CompiledPolicy",
    "EagerEnergy",
    "Erase",
    "HeteroEnergy",
    "InterpretedPolicy",
    "LpQuota",
    "Park",
    "PlacementPolicy",
    "PolicyCompileError",
    "PullPolicy",
    "StarPUScheduler",
]
