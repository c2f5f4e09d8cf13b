"""Keeps two sources from counting the same hardware twice."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import final

from energy.source import Channel, Reading, Source

_COVERS = {"board": frozenset({"board", "package", "dram", "gpu"})}


def covered_by(components: Iterable[str]) -> frozenset[str]:
    """The hardware whose joules are inside these components: a board covers its package, memory and GPU."""
    return frozenset().union(*(_COVERS.get(component, {component}) for component in components))


def in_total(channels: Iterable[Channel]) -> frozenset[str]:
    """The components that these channels add to the total."""
    return frozenset(channel.component for channel in channels if channel.in_total)


@final
class OutsideTotal(Source):
    """Another source, of which `components` are recorded beside the total, since it has their joules already."""

    def __init__(self, source: Source, components: Collection[str]) -> None:
        self.source = source
        self.name = source.name
        self.quality = source.quality
        self.in_process = source.in_process
        self._components = frozenset(components)

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(
            replace(channel, in_total=False) if channel.component in self._components else channel
            for channel in self.source.channels
        )

    def open(self) -> None:
        self.source.open()
        self.left_out = self.source.left_out

    def close(self) -> None:
        self.source.close()

    def read(self) -> list[Reading]:
        return self.source.read()
