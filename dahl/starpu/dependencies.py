"""The order that StarPU gives to tasks from how they access their data (sequential consistency)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from dahl.starpu.kernel import Mode

Accesses = Sequence[Sequence[tuple[int, Mode]]]
"""Of each task, in the order of submission: its data and how it accesses them."""


@final
@dataclass(frozen=True)
class Dependencies:
    """Pairs of places (t, u): u starts after t has ended; in ``following`` u is of the next submission."""

    within: tuple[tuple[int, int], ...]
    following: tuple[tuple[int, int], ...]


@dataclass
class _Use:
    """Who wrote some data last, and who has read it since."""

    writer: int | None = None
    readers: list[int] = field(default_factory=list)


def dependencies(accesses: Accesses) -> Dependencies:
    """Return the order of tasks that are submitted once, and again: a read waits for the last write, a write for all
    reads since the last one, or else for that write.
    """
    uses: dict[int, _Use] = {}
    count = len(accesses)
    within: set[tuple[int, int]] = set()
    following: set[tuple[int, int]] = set()
    for at in range(2 * count):
        before: set[int] = set()
        for handle, mode in accesses[at % count]:
            use = uses.setdefault(handle, _Use())
            if mode != "r" and use.readers:
                before.update(use.readers)
            elif use.writer is not None:
                before.add(use.writer)
        for handle, mode in accesses[at % count]:
            use = uses[handle]
            if mode == "r":
                use.readers.append(at)
            else:
                use.writer, use.readers = at, []
        for earlier in before - {at}:
            if at < count:
                within.add((earlier, at))
            elif earlier < count:
                following.add((earlier, at - count))
    return Dependencies(tuple(sorted(within)), tuple(sorted(following)))
