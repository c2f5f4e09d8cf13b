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
    """By pairs of places (t, u), of which u starts after t has ended: the data that u reads as t wrote them.

    In ``following`` u is of the next submission. Pairs are in order.
    """

    within: dict[tuple[int, int], tuple[int, ...]]
    following: dict[tuple[int, int], tuple[int, ...]]


@dataclass
class _Use:
    """Who wrote some data last, and who has read it since."""

    writer: int | None = None
    readers: list[int] = field(default_factory=list)


def dependencies(accesses: Accesses) -> Dependencies:
    """Return the order of tasks that are submitted once, and again: a read waits for the last write, a write for it
    and for all reads since.
    """
    uses: dict[int, _Use] = {}
    count = len(accesses)
    within: dict[tuple[int, int], tuple[int, ...]] = {}
    following: dict[tuple[int, int], tuple[int, ...]] = {}
    for at in range(2 * count):
        before: dict[int, set[int]] = {}
        for handle, mode in accesses[at % count]:
            use = uses.setdefault(handle, _Use())
            if mode != "r":
                for reader in use.readers:
                    before.setdefault(reader, set())
            if use.writer is not None:
                read = before.setdefault(use.writer, set())
                if mode != "w":
                    read.add(handle)
        for handle, mode in accesses[at % count]:
            use = uses[handle]
            if mode == "r":
                use.readers.append(at)
            else:
                use.writer, use.readers = at, []
        for earlier, read in before.items():
            if at < count:
                within[earlier, at] = tuple(sorted(read))
            elif earlier < count:
                following[earlier, at - count] = tuple(sorted(read))
    return Dependencies(dict(sorted(within.items())), dict(sorted(following.items())))
