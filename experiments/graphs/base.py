"""What a task graph is before any StarPU: kinds of task with their work, data, and who accesses what."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

from dahl.starpu.kernel import Mode

KINDS = ("conv", "gemm", "memory")
"""The kinds of kernel that a platform has rates for."""

FLOAT_BYTES = 4


class GraphError(ValueError):
    """A graph cannot be made; the message names the field."""


@final
@dataclass(frozen=True)
class TaskKind:
    """Tasks of one codelet and size: arithmetic, memory traffic, the rate that holds for it, and who can run it."""

    name: str
    kind: str
    flops: float
    bytes: float
    arches: tuple[str, ...] = ("cpu", "cuda")

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise GraphError(f"{self.name}: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for field, value in (("flops", self.flops), ("bytes", self.bytes)):
            if not (value >= 0 and math.isfinite(value)):
                raise GraphError(f"{self.name}: {field} must be 0 or more, got {value}")
        if not self.arches or set(self.arches) - {"cpu", "cuda"}:
            raise GraphError(f"{self.name}: arches must be cpu and/or cuda, got {list(self.arches)}")


@final
@dataclass(frozen=True)
class GraphTask:
    """One task: its kind by place, and its data with how it accesses them."""

    kind: int
    accesses: tuple[tuple[int, Mode], ...]


@final
@dataclass(frozen=True)
class GraphDescription:
    """Graphs over common data. ``parts`` are lists of tasks, each to be submitted so many times, one after another.

    Tasks are ordered by their accesses, as StarPU does it.
    """

    kinds: tuple[TaskKind, ...]
    data_bytes: tuple[int, ...]
    parts: tuple[tuple[tuple[GraphTask, ...], int], ...]

    def __post_init__(self) -> None:
        if not self.parts or not all(tasks and times >= 1 for tasks, times in self.parts):
            raise GraphError("a graph needs parts of at least one task, each submitted at least once")
        if any(size < 1 for size in self.data_bytes):
            raise GraphError(f"data must have at least 1 byte, got {min(self.data_bytes)}")
        for tasks, _ in self.parts:
            for task in tasks:
                if not 0 <= task.kind < len(self.kinds):
                    raise GraphError(f"a task is of kind {task.kind}; there are {len(self.kinds)}")
                for data, mode in task.accesses:
                    if not 0 <= data < len(self.data_bytes) or mode not in ("r", "w", "rw"):
                        raise GraphError(
                            f"a task accesses data {data} as {mode!r}; there are {len(self.data_bytes)}"
                        )

    def to_json(self) -> dict[str, Any]:
        """The graph as JSON can hold it."""
        return {
            "kinds": [asdict(kind) for kind in self.kinds],
            "data_bytes": list(self.data_bytes),
            "parts": [
                {"times": times, "tasks": [[task.kind, task.accesses] for task in tasks]}
                for tasks, times in self.parts
            ],
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> GraphDescription:
        """The graph of such a record. Raises KeyError, TypeError or GraphError for one that is none."""
        return GraphDescription(
            tuple(TaskKind(**{**kind, "arches": tuple(kind["arches"])}) for kind in record["kinds"]),
            tuple(record["data_bytes"]),
            tuple(
                (
                    tuple(
                        GraphTask(kind, tuple((d, mode) for d, mode in used)) for kind, used in part["tasks"]
                    ),
                    part["times"],
                )
                for part in record["parts"]
            ),
        )


@dataclass(frozen=True, kw_only=True)
class GraphWorkload(ABC):
    """A task graph from a few parameters; ``configs/workload`` names one file for each."""

    @abstractmethod
    def describe(self) -> GraphDescription:
        """Return the graph."""


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise GraphError, naming the field and its value, unless it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise GraphError(f"workload.{name} must be a whole number of at least {least}, got {value!r}")


def square_kind(name: str, size: int, flops: float, tiles: int) -> TaskKind:
    """A kind of dense linear algebra on so many float32 tiles of size x size."""
    return TaskKind(name, "gemm", flops, float(FLOAT_BYTES * size * size * tiles))
