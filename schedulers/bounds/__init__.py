"""Least joules, watts and seconds that no schedule beats, by SciPy's HiGHS; docs/bounds.md has the formulas."""

from schedulers.bounds.active import ActiveSet, fewest_watts
from schedulers.bounds.area import AreaBound, area_bound, least_makespan_s
from schedulers.bounds.best import BestSchedule, best_schedule
from schedulers.bounds.front import FrontPoint, energy_deadline_front, hypervolume, pareto_front
from schedulers.bounds.graph import Graph, Version
from schedulers.bounds.instance import BoundError
from schedulers.bounds.mixed import MixedBound, least_graph_makespan_s, mixed_bound

__all__ = [
    "ActiveSet",
    "AreaBound",
    "BestSchedule",
    "BoundError",
    "FrontPoint",
    "Graph",
    "MixedBound",
    "Version",
    "area_bound",
    "best_schedule",
    "energy_deadline_front",
    "fewest_watts",
    "hypervolume",
    "least_graph_makespan_s",
    "least_makespan_s",
    "mixed_bound",
    "pareto_front",
]
