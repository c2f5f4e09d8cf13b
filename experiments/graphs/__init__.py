"""Task graphs other than a CNN's, for simulated nodes: one file for each kind."""

from experiments.graphs.base import GraphDescription, GraphError, GraphTask, GraphWorkload, TaskKind
from experiments.graphs.cholesky import Cholesky
from experiments.graphs.fork_join import ForkJoin
from experiments.graphs.layered import Layered
from experiments.graphs.lu import Lu
from experiments.graphs.recorded import Recorded

__all__ = [
    "Cholesky",
    "ForkJoin",
    "GraphDescription",
    "GraphError",
    "GraphTask",
    "GraphWorkload",
    "Layered",
    "Lu",
    "Recorded",
    "TaskKind",
]
