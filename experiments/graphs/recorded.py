"""The graph that another run has left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from experiments import records
from experiments.graphs.base import GraphDescription, GraphError, GraphWorkload


@final
@dataclass(frozen=True, kw_only=True)
class Recorded(GraphWorkload):
    """The graph in ``file``: a run's ``graph.json``, or one of the same form."""

    file: str

    def describe(self) -> GraphDescription:
        """Return the graph. Raises GraphError where the file is none."""
        path = Path(self.file).expanduser()
        try:
            return GraphDescription.from_json(records.read_json(path)["graph"])
        except OSError as error:
            raise GraphError(f"workload.file={self.file}: cannot be read ({error.strerror})") from error
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, GraphError):
                raise GraphError(f"workload.file={self.file}: {error}") from error
            raise GraphError(
                f"workload.file={self.file} holds no graph ({type(error).__name__}: {error}); "
                f"a simulated run leaves one as {records.GRAPH_NAME}"
            ) from error
