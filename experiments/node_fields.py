"""What a simulated node's description may hold, and what is wrong with one: every message names the field."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

KINDS = ("conv", "gemm", "memory")
"""The kinds of kernel that rates and busy watts are given for."""

RATES = ("gflop_per_s", "gbyte_per_s", "launch_us")
"""How long a task takes: launch + max(flops / rate, bytes / bandwidth)."""

AROUND = ("before", "after", "wake", "submit")
"""What the runtime takes around a task, in microseconds."""

_NEEDED = ("count", "idle_w", "busy_w")
_OPTIONAL = (*RATES, "seconds", "busy_w_by_kind", "parked_w", "datasheet")
_GPU_NEEDED = ("memory_gbyte", "link")
_LINK_NEEDED = ("gbyte_per_s", "latency_us")
_LINK_OPTIONAL = ("joule_per_gbyte", "datasheet")
_MAY_BE_0 = (
    "idle_w",
    "busy_w",
    "parked_w",
    "latency_us",
    "joule_per_gbyte",
    "base_w",
    "park_after_s",
    "noise",
    *AROUND,
)


class PlatformError(ValueError):
    """A platform's description does not describe a machine; the message names the field."""


def check_number(where: str, field: str, value: Any) -> None:
    """Refuse what is no finite number above 0, or of 0 or more where that has a meaning."""
    may_be_0 = field.rpartition(".")[2] in _MAY_BE_0
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0 if may_be_0 else math.ulp(0)) <= value < math.inf:
        least = "of 0 or more" if may_be_0 else "above 0"
        raise PlatformError(f"{where}: {field} must be a number {least}, got {value!r}")


def check_class(where: str, fields: Mapping[str, Any], *, gpu: bool) -> None:
    """Check one worker class."""
    needed = (*_NEEDED, *(_GPU_NEEDED if gpu else ()))
    if "seconds" not in fields or any(name in fields for name in RATES):
        needed = (*needed, *RATES)
    _check_names(where, fields, needed, _OPTIONAL)
    for name in (*needed, "parked_w"):
        if name in fields and name not in ("gflop_per_s", "link"):
            check_number(where, name, fields[name])
    if not isinstance(fields["count"], int):
        raise PlatformError(f"{where}: count must be whole, got {fields['count']!r}")
    if "gflop_per_s" in fields:
        _check_by_kind(where, "gflop_per_s", fields["gflop_per_s"], every=True)
    for key, seconds in fields.get("seconds", {}).items():
        check_number(where, f"seconds[{key}]", seconds)
    if gpu:
        check_link(f"{where}, link", fields["link"])
    _check_watts(where, fields)


def check_link(where: str, link: Mapping[str, Any]) -> None:
    """Check a link between memories."""
    _check_names(where, link, _LINK_NEEDED, _LINK_OPTIONAL)
    for name in (*_LINK_NEEDED, "joule_per_gbyte"):
        if name in link:
            check_number(where, name, link[name])


def check_around(where: str, by_scheduler: Mapping[str, Any]) -> None:
    """Check what the runtime takes around a task, by scheduler."""
    for name, around_us in by_scheduler.items():
        _check_names(f"{where}, around_us.{name}", around_us, (), AROUND)
        for field, value in around_us.items():
            check_number(f"{where}, around_us.{name}", field, value)


def _check_names(
    where: str, fields: Mapping[str, Any], needed: Collection[str], optional: Collection[str]
) -> None:
    missing = [name for name in needed if name not in fields]
    if missing:
        raise PlatformError(f"{where}: {', '.join(missing)} must be given")
    unknown = [str(name) for name in fields if name not in (*needed, *optional)]
    if unknown:
        known = ", ".join(sorted({*needed, *optional}))
        raise PlatformError(f"{where}: unknown field {', '.join(unknown)}; there are: {known}")


def _check_by_kind(where: str, field: str, values: Mapping[str, Any], *, every: bool) -> None:
    if not set(values) <= set(KINDS) or (every and set(values) != set(KINDS)):
        raise PlatformError(f"{where}: {field} takes {', '.join(KINDS)}, got {', '.join(map(str, values))}")
    for kind, value in values.items():
        check_number(where, f"{field}.{kind}", value)


def _check_watts(where: str, fields: Mapping[str, Any]) -> None:
    """Watts must not fall as a worker does more: parked, idle, busy."""
    idle_w = fields["idle_w"]
    if fields["busy_w"] < idle_w:
        raise PlatformError(f"{where}: busy_w {fields['busy_w']} is below idle_w {idle_w}")
    if fields.get("parked_w", idle_w) > idle_w:
        raise PlatformError(f"{where}: parked_w {fields['parked_w']} is above idle_w {idle_w}")
    by_kind = fields.get("busy_w_by_kind", {})
    _check_by_kind(where, "busy_w_by_kind", by_kind, every=False)
    for kind, watts in by_kind.items():
        if watts < idle_w:
            raise PlatformError(f"{where}: busy_w_by_kind.{kind} {watts} is below idle_w {idle_w}")
