"""Power and energy sensors of boards (INA219, INA226, INA3221...) through Linux's hwmon tree."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from energy.integral import LONGEST_GAP_S, PowerIntegral
from energy.source import Channel, Quality, ReadError, Reading, Source, SourceUnavailableError

HWMON = Path("/sys/class/hwmon")

TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")
"""Labels of rails that feed the whole module: Jetson Orin NX, Orin Nano, Xavier NX, TX2; Nano, TX1."""

_UNIT_J = 1e-6
_COUNTER_PERIOD_S = 0.001
_LONGEST_NUMBER = 32
_CHIP = re.compile(r"ina\d+|sq52206|ltc29\d\d|amd_energy")
# Linux before 6.17 shows this one's energy in mJ under the name for uJ: its power is right.
_WRONG_ENERGY = {"sq52206"}
_REMEDY_ABSENT = (
    "load the driver of the board's sensors (`sudo modprobe ina3221` or `ina2xx`), or choose energy=model"
)


@dataclass(frozen=True, slots=True)
class _Sensor:
    """One rail: a counter of energy, a sensor of power, or one of current and one of voltage."""

    channel: Channel
    paths: tuple[Path, ...]


@dataclass(slots=True)
class _OpenSensor:
    channel: Channel
    descriptors: list[int]
    integral: PowerIntegral


@final
class HwmonSource(Source):
    """Reads the rails of every INA and LTC sensor below `root`, and AMD's socket counters (`amd_energy`).

    Channels are `hwmon:` and the rail's label, or its chip, place and number where it has none. A sensor of
    energy is read as it is. One of power (or current and voltage) is sampled, and the source sums it up:
    such channels are `integrated`, their error bound is what flows in `LONGEST_GAP_S`, and samples further
    apart than that leave a gap.

    In the total are rails named in `total_rails` (component `board`, it covers CPU, GPU and memory) and
    AMD's sockets (`package`). All others are recorded beside it, since rails may feed one another.

    `pread(descriptor, count, offset)` reads a file that is open.
    """

    name = "hwmon"
    quality: Quality = "measured"

    def __init__(
        self,
        root: Path = HWMON,
        *,
        total_rails: Collection[str] = TOTAL_RAILS,
        pread: Callable[[int, int, int], bytes] = os.pread,
    ) -> None:
        self._root = Path(root)
        self._total_rails = frozenset(total_rails)
        self._pread = pread
        self.in_process = pread is not os.pread
        self._open: list[_OpenSensor] = []

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(sensor.channel for sensor in self._open)

    def open(self) -> None:
        self.close()
        try:
            self._open_sensors(_find_sensors(self._root, self._total_rails))
        except BaseException:
            self.close()
            raise

    def _open_sensors(self, sensors: list[_Sensor]) -> None:
        left_out = []
        for sensor in sensors:
            opened = _OpenSensor(sensor.channel, [], PowerIntegral())
            self._open.append(opened)
            try:
                for path in sensor.paths:
                    opened.descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                self._read_sensor(opened)
            except (OSError, ValueError) as error:
                folder = sensor.paths[0].parent
                why = f"{sensor.paths[0]} cannot be read ({_told(error)})"
                if sensor.channel.in_total:
                    closed = isinstance(error, PermissionError)
                    mend = (
                        f"sudo chmod a+r {folder}/*_input"
                        if closed
                        else f"switch the rail on ({folder}/in*_enable)"
                    )
                    raise SourceUnavailableError("hwmon", why, f"{mend}, or choose energy=model") from error
                left_out.append((sensor.channel.name, why))
                _close(self._open.pop())
        self.left_out = tuple(left_out)
        if not self._open:
            raise SourceUnavailableError("hwmon", f"no sensor below {self._root} can be read", _REMEDY_ABSENT)

    def close(self) -> None:
        while self._open:
            _close(self._open.pop())

    def read(self) -> list[Reading]:
        if not self._open:
            raise ReadError("hwmon", {"all channels": "the source is not open"})
        readings = []
        failed = {}
        for sensor in self._open:
            try:
                readings.append(self._read_sensor(sensor))
            except (OSError, ValueError) as error:
                failed[sensor.channel.name] = _told(error)
        if failed:
            raise ReadError("hwmon", failed, readings)
        return readings

    def _read_sensor(self, sensor: _OpenSensor) -> Reading:
        before_ns = time.monotonic_ns()
        values = [_parse(self._pread(descriptor, _LONGEST_NUMBER, 0)) for descriptor in sensor.descriptors]
        t_ns = (before_ns + time.monotonic_ns()) // 2
        if not sensor.channel.integrated:
            return Reading(sensor.channel.name, t_ns, values[0])
        # mA times mV are uW.
        power_uw = values[0] if len(values) == 1 else values[0] * values[1]
        return Reading(sensor.channel.name, t_ns, sensor.integral.add(t_ns, power_uw))


def _close(sensor: _OpenSensor) -> None:
    while sensor.descriptors:
        os.close(sensor.descriptors.pop())


def _find_sensors(root: Path, total_rails: Collection[str]) -> list[_Sensor]:
    try:
        folders = sorted((path for path in root.iterdir() if path.name.startswith("hwmon")), key=_place)
    except OSError as error:
        raise SourceUnavailableError(
            "hwmon", f"{root} cannot be listed ({_told(error)})", _REMEDY_ABSENT
        ) from error
    sensors = [
        sensor
        for folder in folders
        if _CHIP.fullmatch(chip := _text(folder / "name"))
        for sensor in _sensors_of(folder, chip, total_rails)
    ]
    if not sensors:
        raise SourceUnavailableError("hwmon", f"{root} has no INA, LTC or amd_energy sensor", _REMEDY_ABSENT)
    return _named_apart(sensors)


def _place(folder: Path) -> str:
    """Where the chip sits (`1-0040`): hwmon numbers change from boot to boot."""
    device = folder / "device"
    return device.resolve().name if device.exists() else folder.name


def _sensors_of(folder: Path, chip: str, total_rails: Collection[str]) -> list[_Sensor]:
    """Each rail of a chip once: by its energy where that is counted, else its power, else current and voltage."""
    by_index: dict[int, tuple[Path, ...]] = {}
    for kind in ("energy", "power", "curr"):
        for path in folder.glob(f"{kind}*_input"):
            match = re.fullmatch(rf"{kind}(\d+)_input", path.name)
            if match is None or (kind == "energy" and chip in _WRONG_ENERGY):
                continue
            paths: tuple[Path, ...] = (path,)
            if kind == "curr":
                # INA3221: in1 to in3 are the rails; curr4 sums up, in4 to in7 are drops over the shunts.
                paths = (path, folder / f"in{match[1]}_input")
                if (chip == "ina3221" and int(match[1]) > 3) or not paths[1].exists():
                    continue
            by_index.setdefault(int(match[1]), paths)
    return [
        _Sensor(_channel(folder, chip, index, paths[0].name, total_rails), paths)
        for index, paths in sorted(by_index.items())
    ]


def _channel(folder: Path, chip: str, index: int, file: str, total_rails: Collection[str]) -> Channel:
    kind = re.match("[a-z]+", file)
    assert kind is not None
    label = (
        _text(folder / f"{kind[0]}{index}_label")
        or _text(folder / f"in{index}_label")
        or (_text(folder / "label") if index == 1 else "")
    )
    if chip == "amd_energy":
        component = "package" if label.startswith("Esocket") else "core"
    else:
        component = "board" if label in total_rails else "rail"
    integrated = kind[0] != "energy"
    update_s = _update_interval_s(folder)
    longest_gap_s = max(LONGEST_GAP_S, 5 * update_s)
    return Channel(
        name=f"hwmon:{label or f'{chip}@{_place(folder)}/{index}'}",
        component=component,
        in_total=component in ("board", "package"),
        unit_j=_UNIT_J,
        wrap=None,
        period_s=longest_gap_s if integrated else max(_COUNTER_PERIOD_S, update_s),
        device=f"{chip} at {_place(folder)}, {file}",
        integrated=integrated,
        longest_gap_s=longest_gap_s if integrated else None,
    )


def _update_interval_s(folder: Path) -> float:
    text = _text(folder / "update_interval")
    return int(text) * 1e-3 if text.isascii() and text.isdigit() else 0.0


def _named_apart(sensors: list[_Sensor]) -> list[_Sensor]:
    """Rails of one name (`NC`, not connected) told apart by their place; two of the total are refused."""
    names = [sensor.channel.name for sensor in sensors]
    apart = []
    for sensor in sensors:
        channel = sensor.channel
        if names.count(channel.name) > 1:
            if channel.in_total:
                raise SourceUnavailableError(
                    "hwmon",
                    f"{channel.name} is there more than once: one rail twice, or two",
                    "choose energy=model",
                )
            place = sensor.paths[0].parent
            channel = replace(channel, name=f"{channel.name}@{_place(place)}/{sensor.paths[0].name[:-6]}")
        apart.append(_Sensor(channel, sensor.paths))
    return apart


def _text(path: Path) -> str:
    """What a file holds; nothing where there is none."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _parse(text: bytes) -> int:
    digits = text.strip()
    if not digits.isdigit():
        raise ValueError(f"read {text!r}, no amount")
    return int(digits)


def _told(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
