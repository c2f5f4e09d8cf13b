"""Intel and AMD RAPL counters through Linux's powercap tree."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from energy.source import Channel, Quality, RawFiles, RawSource, ReadError, Reading, SourceUnavailableError

POWERCAP = Path("/sys/class/powercap")

_PERIOD_S = 0.001
_UNIT_J = 1e-6
_LONGEST_NUMBER = 32
_ZONE = re.compile(r"(intel-rapl|intel-rapl-mmio):([0-9a-f]+)(?::([0-9a-f]+))?")
_PACKAGE = re.compile(r"package-\d+(-die-\d+)?")
_DIE = re.compile(r"rapl:(package-\d+)-die-\d+")
_REMEDY_CLOSED = (
    "sudo scripts/allow-rapl (`--help` says whom it lets in), or choose energy=perf or energy=model"
)
_REMEDY_ABSENT = "run on bare metal after `sudo modprobe intel_rapl_msr`, or choose energy=model"


@dataclass(frozen=True, slots=True)
class _Zone:
    folder: Path
    order: tuple[bool, int, int]
    channel: Channel


@final
class RaplSource(RawSource):
    """Reads `energy_uj` of every zone below `root` and keeps the files open.

    Channels carry the zones' names (`rapl:package-0`, `rapl:package-0-die-1`, `rapl:package-0/dram`), since
    the zones' numbers are hexadecimal and change with the machine.
    Packages and their dram are in the total. Not in the total, as packages cover them or they cover packages:
    core, uncore, psys and the mmio copies (`rapl:mmio/package-0`). Of dies that all show their package's one
    counter, as on some AMD processors, only the first is in the total.

    `pread(descriptor, count, offset)` reads a file that is open.
    """

    name = "rapl"
    quality: Quality = "measured"

    def __init__(self, root: Path = POWERCAP, *, pread: Callable[[int, int, int], bytes] = os.pread) -> None:
        self._root = Path(root)
        self._pread = pread
        self.in_process = pread is not os.pread
        self._open: list[tuple[Channel, int]] = []

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(channel for channel, _ in self._open)

    def open(self) -> None:
        self.close()
        try:
            self._open_zones(_find_zones(self._root))
        except BaseException:
            self.close()
            raise

    def _open_zones(self, zones: list[_Zone]) -> None:
        left_out = []
        for zone in zones:
            path = zone.folder / "energy_uj"
            try:
                self._open.append((zone.channel, self._opened(zone.channel, path)))
            except (OSError, ValueError) as error:
                closed = isinstance(error, PermissionError)
                why = f"{path} " + (
                    "may be read by root only" if closed else f"cannot be read ({_told(error)})"
                )
                if zone.channel.in_total:
                    remedy = _REMEDY_CLOSED if closed else _REMEDY_ABSENT
                    raise SourceUnavailableError("rapl", why, remedy) from error
                left_out.append((zone.channel.name, why))
        self.left_out = tuple(left_out)
        self._count_mirrors_once()

    def _count_mirrors_once(self) -> None:
        """Take dies out of the total that show the same counter as another die of their package."""
        firsts: dict[str, list[int]] = {}
        for place, (channel, descriptor) in enumerate(self._open):
            match = _DIE.fullmatch(channel.name)
            if match is None:
                continue
            known = firsts.setdefault(match[1], [])
            for first in known:
                if self._shows_the_same(self._open[first], (channel, descriptor)):
                    told = f"{channel.device}, shows the counter of {self._open[first][0].name}"
                    self._open[place] = (replace(channel, in_total=False, device=told), descriptor)
                    break
            else:
                known.append(place)

    def _shows_the_same(self, one: tuple[Channel, int], other: tuple[Channel, int]) -> bool:
        """Whether a counter read between two readings of another lies between them: by chance, one in a million."""
        try:
            before, between, after = (self._read_counts(*which) for which in (one, other, one))
        except (OSError, ValueError):
            return False  # told by `read`, should it last
        return before <= between <= after

    def _opened(self, channel: Channel, path: Path) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._read_counts(channel, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop()[1])

    def read(self) -> list[Reading]:
        if not self._open:
            raise ReadError("rapl", {"all channels": "the source is not open"})
        readings = []
        failed = {}
        for channel, descriptor in self._open:
            before_ns = time.monotonic_ns()
            try:
                counts = self._read_counts(channel, descriptor)
            except (OSError, ValueError) as error:
                failed[channel.name] = _told(error)
                continue
            readings.append(Reading(channel.name, (before_ns + time.monotonic_ns()) // 2, counts))
        if failed:
            raise ReadError("rapl", failed, readings)
        return readings

    def read_raw(self, into: list[Any]) -> None:
        clock, pread, append = time.monotonic_ns, self._pread, into.append
        before_ns = clock()
        for _, descriptor in self._open:
            try:
                data: bytes | str = pread(descriptor, _LONGEST_NUMBER, 0)
            except OSError as error:
                data = _told(error)
            after_ns = clock()
            append((before_ns + after_ns) // 2)
            append(data)
            before_ns = after_ns

    @property
    def files(self) -> RawFiles | None:
        if self.in_process:
            return None
        return RawFiles(tuple(descriptor for _, descriptor in self._open), "digits")

    def counts(self, data: bytes) -> int:
        return _parse(data)

    def _read_counts(self, channel: Channel, descriptor: int) -> int:
        counts = _parse(self._pread(descriptor, _LONGEST_NUMBER, 0))
        if channel.wrap is not None and counts >= channel.wrap:
            raise ValueError(f"counter at {counts} uJ, beyond its range of {channel.wrap - 1} uJ")
        return counts


def _find_zones(root: Path) -> list[_Zone]:
    """All zones below `root`, which lists them flat, nested, or both."""
    folders: dict[str, Path] = {}
    try:
        for top in sorted(root.iterdir()):
            if top.name.startswith("intel-rapl"):
                for folder in (top, *sorted(top.iterdir())):
                    _add_zone(folders, folder)
                    if folder != top and _ZONE.fullmatch(folder.name):
                        for nested in sorted(folder.iterdir()):
                            _add_zone(folders, nested)
    except OSError as error:
        raise SourceUnavailableError(
            "rapl", f"{root} cannot be listed ({_told(error)})", _REMEDY_ABSENT
        ) from error
    zones = [_zone(folders, folder) for folder in folders.values()]
    if not any(zone.channel.component == "package" and zone.channel.in_total for zone in zones):
        raise SourceUnavailableError(
            "rapl", f"{root} has no package zone (virtual machines and containers have none)", _REMEDY_ABSENT
        )
    _check_names(zones)
    return sorted(zones, key=lambda zone: zone.order)


def _add_zone(folders: dict[str, Path], folder: Path) -> None:
    if _ZONE.fullmatch(folder.name):
        folders.setdefault(folder.name, folder)


def _check_names(zones: list[_Zone]) -> None:
    seen: dict[str, Path] = {}
    for zone in zones:
        name = zone.channel.name
        if name in seen:
            raise SourceUnavailableError(
                "rapl",
                f"{seen[name]} and {zone.folder} are both named {name}: one counter twice, or two",
                "choose energy=model",
            )
        seen[name] = zone.folder


def _zone(folders: dict[str, Path], folder: Path) -> _Zone:
    match = _ZONE.fullmatch(folder.name)
    assert match is not None
    driver, top, nested = match.groups()
    mmio = driver == "intel-rapl-mmio"
    own = _read_text(folder / "name")
    name = own
    if nested is not None:
        parent = folders.get(f"{driver}:{top}", folder.parent)
        name = f"{_read_text(parent / 'name')}/{own}"
    component = "package" if nested is None and _PACKAGE.fullmatch(own) else own
    channel = Channel(
        name=f"rapl:mmio/{name}" if mmio else f"rapl:{name}",
        component=component,
        in_total=not mmio and (component == "package" or (nested is not None and component == "dram")),
        unit_j=_UNIT_J,
        wrap=_read_range_uj(folder / "max_energy_range_uj") + 1,
        period_s=_PERIOD_S,
        device=folder.name,
    )
    return _Zone(folder, (mmio, int(top, 16), -1 if nested is None else int(nested, 16)), channel)


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceUnavailableError(
            "rapl", f"{path} cannot be read ({_told(error)})", _REMEDY_ABSENT
        ) from error


def _read_range_uj(path: Path) -> int:
    text = _read_text(path)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise SourceUnavailableError("rapl", f"{path} holds {text!r}, no range of a counter", _REMEDY_ABSENT)
    return int(text)


def _parse(text: bytes) -> int:
    digits = text.strip()
    if not digits.isdigit():
        raise ValueError(f"read {text!r}, no number")
    return int(digits)


def _told(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
