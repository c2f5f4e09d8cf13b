"""Scheduling policies, one file each, and StarPU's own by name."""

from schedulers.base import PlacementPolicy, PullPolicy
from schedulers.compiled import CompiledPolicy, PolicyCompileError
from schedulers.eager_energy import EagerEnergy
from schedulers.edp import Edp
from schedulers.energy_greedy import EnergyGreedy
from schedulers.erase import Erase
from schedulers.gamma_mct import GammaMct
from schedulers.hetero_energy import HeteroEnergy
from schedulers.interpreted import InterpretedPolicy
from schedulers.lp_quota import LpQuota
from schedulers.park import Park
from schedulers.plan_ahead import PlanAhead
from schedulers.power_cap import PowerCap
from schedulers.starpu import StarPUScheduler

__all__ = [
    "CompiledPolicy",
    "EagerEnergy",
    "Edp",
    "EnergyGreedy",
    "Erase",
    "GammaMct",
    "HeteroEnergy",
    "InterpretedPolicy",
    "LpQuota",
    "Park",
    "PlacementPolicy",
    "PlanAhead",
    "PolicyCompileError",
    "PowerCap",
    "PullPolicy",
    "StarPUScheduler",
]
