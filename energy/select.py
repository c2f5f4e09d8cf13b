"""Which energy sources a run uses, and why the others are not there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from energy.alumet_live import AlumetSource
from energy.hwmon import HwmonSource
from energy.nvml import NvmlSource
from energy.overlap import OutsideTotal, covered_by, in_total
from energy.perf import PerfSource
from energy.pyrapl import PyRaplSource
from energy.rapl import RaplSource
from energy.replay import ReplaySource
from energy.source import Channel, Source, SourceUnavailableError

SOURCES: Mapping[str, Callable[..., Source]] = MappingProxyType(
    {
        "rapl": RaplSource,
        "perf": PerfSource,
        "pyrapl": PyRaplSource,
        "hwmon": HwmonSource,
        "nvml": NvmlSource,
        "alumet": AlumetSource,
        "replay": ReplaySource,
    }
)
"""What makes each source."""

AUTO = ("rapl", "perf", "pyrapl", "hwmon", "nvml")
"""What `auto` tries, the best for each component first."""

STAND_INS: Mapping[str, str] = MappingProxyType({"rapl": "perf"})
"""Another way to the same counters, where the one that was asked for is closed."""

NO_SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


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
    names: str | Sequence[str] = "auto",
    makers: Mapping[str, Callable[..., Source]] = SOURCES,
    settings: Mapping[str, Mapping[str, Any]] = NO_SETTINGS,
) -> Selection:
    """The sources that `names` asks for: `auto`, names, or one text of names with commas.

    `auto` takes the best source for each component (package, dram, gpu, or the board that holds them), possibly
    none: the run then uses its labelled power model.
    Sources asked for by name are all taken. Where two cover the same component the first one counts, and the
    other is recorded beside the total. `rapl` is read through perf events where powercap is closed.

    `settings` are arguments of single sources, by name: `{"hwmon": {"total_rails": ["VIN_12V"]}}`.

    A source asked for by name that cannot be read raises its `SourceUnavailableError`, with the remedy;
    an unknown name or setting raises `ValueError`. Each source is opened once to find out, and closed again.
    """
    makers = _with_settings(makers, settings)
    if names == "auto":
        return _best(makers)
    asked = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    for name in asked:
        if name not in makers:
            raise ValueError(f"there is no energy source {name!r}; there are auto, {', '.join(makers)}")
    sources: list[Source] = []
    absent: list[Absent] = []
    covered: frozenset[str] = frozenset()
    for name in dict.fromkeys(asked):
        source, channels = _asked_for(name, makers, absent)
        if source.name in {taken.name for taken in sources}:
            continue
        source, added = _beside(source, channels, covered)
        sources.append(source)
        covered |= covered_by(added)
    return Selection(tuple(sources), tuple(absent))


def _with_settings(
    makers: Mapping[str, Callable[..., Source]], settings: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Callable[..., Source]]:
    for name, arguments in settings.items():
        if name not in makers:
            raise ValueError(f"energy.settings names no source with {name!r}; there are {', '.join(makers)}")
        known = inspect.signature(makers[name]).parameters
        for argument in arguments:
            if argument not in known:
                raise ValueError(
                    f"energy.settings.{name} has {argument!r}; {name} takes {', '.join(known) or 'none'}"
                )
    return {name: partial(make, **settings.get(name, {})) for name, make in makers.items()}


def _best(makers: Mapping[str, Callable[..., Source]]) -> Selection:
    sources: list[Source] = []
    absent: list[Absent] = []
    covered: frozenset[str] = frozenset()
    for name in AUTO:
        if name not in makers:
            continue
        source = makers[name]()
        state = _probe(name, source)
        if isinstance(state, Absent):
            absent.append(state)
            continue
        source, added = _beside(source, state.channels, covered)
        if not added:
            counted = ", ".join(sorted(in_total(state.channels)))
            why = f"all that it counts ({counted}) is counted already" if counted else "it has no total"
            absent.append(Absent(name, why, f"energy.sources=[{name}] takes it alone"))
            continue
        sources.append(source)
        covered |= covered_by(added)
    return Selection(tuple(sources), tuple(absent))


def _asked_for(
    name: str, makers: Mapping[str, Callable[..., Source]], absent: list[Absent]
) -> tuple[Source, tuple[Channel, ...]]:
    source = makers[name]()
    try:
        with source:
            return source, source.channels
    except SourceUnavailableError as error:
        stand_in = STAND_INS.get(name)
        if stand_in is None or stand_in not in makers:
            raise
        other = makers[stand_in]()
        state = _probe(stand_in, other)
        if isinstance(state, Absent):
            why = f"{error.why}; nor by {stand_in}: {state.why}"
            raise SourceUnavailableError(name, why, error.remedy) from error
        absent.append(Absent(name, f"{error.why}; read through {stand_in}", error.remedy))
        return other, state.channels


def _beside(
    source: Source, channels: tuple[Channel, ...], covered: frozenset[str]
) -> tuple[Source, frozenset[str]]:
    """The source, with what is counted already put beside the total; and the components that it adds to that."""
    counted = in_total(channels)
    twice = frozenset(component for component in counted if covered_by({component}) & covered)
    return (OutsideTotal(source, twice) if twice else source), counted - twice


def availability(makers: Mapping[str, Callable[..., Source]] = SOURCES) -> list[Present | Absent]:
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
