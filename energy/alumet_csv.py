"""The CSV that Alumet's agent writes (0.9.0 to 0.9.5): its header, its rows, and what each of them counts.

A row is `metric;timestamp;value;resource_kind;resource_id;consumer_kind;consumer_id`, then the attributes
that the agent's first buffer had, one column each, then `__late_attributes` with all others as
`key=value,key=value`. The unit at the end of a metric's name may be switched off.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import final

from energy.gpu_identity import pci_address

LATE = "__late_attributes"
RAPL = "rapl_consumed_energy"
GPU_ENERGY = "nvml_energy_consumption"
GPU_POWER = "nvml_instant_power"

_REQUIRED = ("metric", "timestamp", "value", "resource_kind", "resource_id")
_STANDARD = frozenset((*_REQUIRED, "consumer_kind", "consumer_id", LATE))
_DELIMITERS = (";", ",", "\t", "|")
_UNITS: Mapping[str, Mapping[str, float]] = {
    RAPL: {"": 1.0, "J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "μJ": 1e-6},
    GPU_ENERGY: {"": 1e-3, "J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "μJ": 1e-6},
    GPU_POWER: {"": 1e-3, "W": 1.0, "mW": 1e-3, "uW": 1e-6, "μW": 1e-6},
}
_DOMAINS = ("package", "dram", "pp0", "pp1", "platform")
_WITH_TOTALS = frozenset((*_DOMAINS, *(f"{domain}_total" for domain in _DOMAINS)))
_LATE_DOMAIN = re.compile(r"(?:^|\W)domain=(\w+)")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:\d\d)")
_VALUE = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AlumetError(RuntimeError):
    """A file is no CSV of Alumet, or cannot be read."""


@final
@dataclass(frozen=True)
class Layout:
    """What the header says of the rows."""

    delimiter: str
    columns: tuple[str, ...]

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that have columns of their own."""
        return tuple(name for name in self.columns if name not in _STANDARD)

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """The columns that say what a row is of, in the order in which `Row` takes them."""
        late = (LATE,) if LATE in self.columns else ()
        return ("metric", "resource_kind", "resource_id", *self.attributes, *late)

    def fields(self, line: str) -> dict[str, str] | None:
        """The fields of one whole line by column; None where their number is wrong."""
        found = next(csv.reader([line], delimiter=self.delimiter), [])
        return dict(zip(self.columns, found, strict=True)) if len(found) == len(self.columns) else None


@dataclass(frozen=True, slots=True)
class Row:
    """What the rows of one metric, resource and domain are of."""

    name: str
    """The channel: `alumet:package-0`, `alumet:package-0/dram`, `alumet:gpu-00000000:C6:00.0`."""
    component: str
    in_total: bool
    scale: float
    """Joules, or watts, of a value of 1."""
    is_power: bool
    """Whether the value is a power at one moment; else the joules since the row before."""
    device: str


def read_layout(path: Path, header: bytes) -> Layout:
    """What a file's first line, without its end, says; `AlumetError` where it is not Alumet's."""
    text = header.decode("utf-8", errors="replace").removeprefix("\ufeff").rstrip("\r")
    for delimiter in _DELIMITERS:
        columns = tuple(next(csv.reader([text], delimiter=delimiter), []))
        if set(_REQUIRED) <= set(columns):
            if len(set(columns)) < len(columns):
                raise AlumetError(f"{path} names a column twice: {text!r}")
            return Layout(delimiter, columns)
    raise AlumetError(
        f"{path} is no CSV of Alumet: its first line {text[:80]!r} must name {', '.join(_REQUIRED)}"
    )


def may_become_header(start: bytes) -> bool:
    """Whether a file that ends before its first line does may be one of Alumet's, just begun."""
    begun = start.decode("utf-8", errors="replace")
    return any(delimiter.join(_REQUIRED[:3]).startswith(begun[:20]) for delimiter in _DELIMITERS)


def base_metric(metric: str) -> str | None:
    """The metric that is read here, without its unit; None for all others."""
    for base in _UNITS:
        if metric == base or metric.startswith(f"{base}_"):
            return base
    return None


def row_of(identity: Mapping[str, str]) -> Row | None:
    """What the row with these fields (`Layout.identity`) is of; None for what is not read.

    Not read are other metrics and the sums that the RAPL plugin adds by domain. `ValueError` where a metric
    that is read says something that is not understood: its joules would be missing.
    """
    metric = identity["metric"]
    base = base_metric(metric)
    if base is None:
        return None
    unit = metric.removeprefix(base).removeprefix("_")
    if unit not in _UNITS[base]:
        raise ValueError(f"{base} in {unit!r}, a unit that is not known")
    scale = _UNITS[base][unit]
    return _rapl(identity, scale) if base == RAPL else _gpu(identity, base, scale)


def _rapl(identity: Mapping[str, str], scale: float) -> Row | None:
    domain, kind, number = _domain(identity), identity["resource_kind"], identity["resource_id"]
    package = f"alumet:package-{number}"
    device = f"{kind} {number}".strip()
    match domain, kind:
        case ("package", "cpu_package"):
            return Row(package, "package", True, scale, False, device)
        case ("dram", "dram"):
            return Row(f"{package}/dram", "dram", True, scale, False, device)
        case ("pp0", "cpu_package"):
            return Row(f"{package}/core", "core", False, scale, False, device)
        case ("pp1", "cpu_package"):
            return Row(f"{package}/uncore", "uncore", False, scale, False, device)
        case ("platform", _):
            return Row("alumet:psys", "psys", False, scale, False, device)
    if domain in _WITH_TOTALS and kind == "local_machine":
        return None  # a sum of rows that are there too
    raise ValueError(f"RAPL's domain {domain!r} on {kind!r} {number!r}, which is not known")


def _gpu(identity: Mapping[str, str], base: str, scale: float) -> Row:
    kind, bus_id = identity["resource_kind"], identity["resource_id"]
    if kind != "gpu" or not bus_id:
        raise ValueError(f"{base} on {kind!r} {bus_id!r}, which is no GPU")
    try:
        device = pci_address(bus_id)  # as CUDA and Linux write it
    except ValueError:
        device = bus_id
    return Row(f"alumet:gpu-{bus_id}", "gpu", True, scale, base == GPU_POWER, device)


def _domain(identity: Mapping[str, str]) -> str:
    """RAPL's domain, from its own column, the last one, or another attribute's.

    Up to 0.9.1 the values of a row stand in the first attribute columns, whatever those are called.
    """
    if identity.get("domain"):
        return identity["domain"]
    late = _LATE_DOMAIN.search(identity.get(LATE, ""))
    if late is not None:
        return late.group(1)
    others = (value for name, value in identity.items() if name not in _STANDARD)
    return next((value for value in others if value in _WITH_TOTALS), "")


def parse_time_ns(text: str) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 time with up to nine digits of a second; None for what is none."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    whole, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(whole.upper()).replace(tzinfo=_zone(zone))
    except ValueError:
        return None
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def _zone(text: str) -> timezone:
    if text in "Zz":
        return UTC
    minutes = int(text[1:3]) * 60 + int(text[4:6])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def parse_value(text: str) -> float | None:
    """A value; None for what is no number, is negative, or is not finite."""
    if not _VALUE.fullmatch(text):
        return None
    value = float(text)
    return value if 0 <= value < float("inf") else None
