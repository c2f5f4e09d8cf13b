"""Which energy sources a run uses, and why the others are not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from energy.nvml import NvmlSource
from energy.rapl import RaplSource
from energy.source import Channel, Source, SourceUnavailableError

SOURCES: Mapping[str, Callable[[], Source]] = MappingProxyType({"rapl": RaplSource, "nvml": NvmlSource})
"""What makes each source, in the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class Absent:
    """A source that this machine does not have, or this user may not read."""

    name: str
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Present:
    """A source that can be read here."""

    name: str
    channels: tuple[Channel, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    """Channels outside the total that cannot be read, with the reason."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The sources of a run, not yet open, and those that are absent."""

    sources: tuple[Source, ...]
    absent: tuple[Absent, ...]


def select_sources(
    names: str | Sequence[str] = "auto", makers: Mapping[str, Callable[[], Source]] = SOURCES
) -> Selection:
    """The sources that `names` asks for: `auto`, names, or one text of names with commas.

    `auto` takes every source that can be read here, possibly none: the run then uses its labelled power
    model.
    A source asked for by name that cannot be read raises its `SourceUnavailableError`, with the remedy;
    an unknown name raises `ValueError`. Each source is opened once to find out, and closed again.
    """
    if names == "auto":
        found = [(name, _probe(name, make())) for name, make in makers.items()]
        return Selection(
            sources=tuple(makers[name]() for name, state in found if isinstance(state, Present)),
            absent=tuple(state for _, state in found if isinstance(state, Absent)),
        )
    asked = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    for name in asked:
        if name not in makers:
            raise ValueError(f"there is no energy source {name!r}; there are auto, {', '.join(makers)}")
    sources = tuple(makers[name]() for name in dict.fromkeys(asked))
    for source in sources:
        with source:
            pass
    return Selection(sources, ())


def availability(makers: Mapping[str, Callable[[], Source]] = SOURCES) -> list[Present | Absent]:
    """What every source says on this machine; never raises."""
    return [_probe(name, make()) for name, make in makers.items()]


def _probe(name: str, source: Source) -> Present | Absent:
    try:
        with source:
            return Present(name, source.channels, source.left_out)
    except SourceUnavailableError as error:
        return Absent(name, error.why, error.remedy)
    except Exception as error:
        # A broken driver must not take the doctor, or a run that can do without, down with it.
        return Absent(
            name, f"{type(error).__name__}: {error}", f"choose energy=model, or report this for {name}"
        )
