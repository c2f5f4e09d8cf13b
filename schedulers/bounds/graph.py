"""A graph of tasks, repeated so many times, as the mixed bound and the best schedule take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

Edge = tuple[int, int]


@final
@dataclass(frozen=True)
class Version:
    """What a task writes and others read, of the same repetition (``readers``) or of the next (``next_readers``).

    Each memory of theirs that is not the writer's needs a copy, which takes ``seconds`` of the link of a GPU and
    ``joules``, at least.
    """

    writer: int
    readers: tuple[int, ...]
    next_readers: tuple[int, ...]
    seconds: float
    joules: float


@final
@dataclass(frozen=True)
class Graph:
    """Tasks in an order that every edge follows.

    ``kinds[t]`` is the row of task t in the tables of lengths and energies. An edge (t, u) says that u starts after t
    has ended; one of ``next_edges`` that u of the next repetition does. ``transfer_s`` and ``next_transfer_s`` are, by
    edge, how long it takes at least to move what u reads from t between two memories; empty: nothing is moved.
    ``versions`` are what the tasks hand on; empty: copies take no link and no joules.
    """

    kinds: Sequence[int]
    edges: Sequence[Edge] = ()
    next_edges: Sequence[Edge] = ()
    repeats: int = 1
    transfer_s: Sequence[float] = ()
    next_transfer_s: Sequence[float] = ()
    versions: Sequence[Version] = ()
    before: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    """Of each task, those that it follows directly."""

    def __post_init__(self) -> None:
        if not len(self.kinds):
            raise ValueError("a graph needs at least one task")
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")
        for t, u in self.edges:
            if not 0 <= t < u < len(self.kinds):
                raise ValueError(
                    f"edge {t} -> {u}: edges lead from a task to a later one of {len(self.kinds)}"
                )
        for t, u in self.next_edges:
            if not (0 <= t < len(self.kinds) and 0 <= u < len(self.kinds)):
                raise ValueError(f"edge {t} -> {u} to the next repetition: there are {len(self.kinds)} tasks")
        for edges, transfers in ((self.edges, self.transfer_s), (self.next_edges, self.next_transfer_s)):
            if len(transfers) not in (0, len(edges)) or not all(seconds >= 0 for seconds in transfers):
                raise ValueError(f"{len(transfers)} transfers, of 0 s or more, for {len(edges)} edges")
        for one in self.versions:
            if not all(0 <= t < len(self.kinds) for t in (one.writer, *one.readers, *one.next_readers)):
                raise ValueError(f"{one}: there are {len(self.kinds)} tasks")
            if not (one.seconds >= 0 and one.joules >= 0):
                raise ValueError(f"{one}: a copy takes seconds and joules of 0 or more")
        before: list[list[int]] = [[] for _ in self.kinds]
        for t, u in self.edges:
            before[u].append(t)
        object.__setattr__(self, "before", tuple(map(tuple, before)))

    def __len__(self) -> int:
        return len(self.kinds)

    def counts(self, kinds: int) -> np.ndarray:
        """How many tasks of each kind there are in all repetitions."""
        return np.bincount(np.asarray(self.kinds), minlength=kinds) * float(self.repeats)

    def ordered(self) -> list[tuple[int, int, float]]:
        """The edges with their transfers."""
        return _with_transfers(self.edges, self.transfer_s)

    def next_ordered(self) -> list[tuple[int, int, float]]:
        """The edges to the next repetition with their transfers."""
        return _with_transfers(self.next_edges, self.next_transfer_s)

    def reaches(self) -> np.ndarray:
        """(n, n): whether there is a way from t to u; a task reaches itself."""
        found = np.eye(len(self), dtype=bool)
        for u, earlier in enumerate(self.before):
            for t in earlier:
                found[:, u] |= found[:, t]
        return found

    def width(self) -> int:
        """The most tasks of one repetition of which none has to wait for another, by Dilworth's theorem."""
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import maximum_bipartite_matching

        below = self.reaches() & ~np.eye(len(self), dtype=bool)
        matched = maximum_bipartite_matching(csr_matrix(below), perm_type="column")
        return len(self) - int((matched >= 0).sum())


def _with_transfers(edges: Sequence[Edge], transfers: Sequence[float]) -> list[tuple[int, int, float]]:
    seconds = transfers or [0.0] * len(edges)
    return [(t, u, float(s)) for (t, u), s in zip(edges, seconds, strict=True)]
