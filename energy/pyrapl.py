"""RAPL counters as the package pyRAPL reads them, for comparison with what was measured through it."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Sequence
from typing import Any, final

from energy.source import Channel, Quality, ReadError, Reading, Source, SourceUnavailableError

_PERIOD_S = 0.001
_UNIT_J = 1e-6
# Exact as the float that pyRAPL makes of it.
_LARGEST = 2**53
_REMEDY_CLOSED = "sudo scripts/allow-rapl, or choose energy=model"
_REMEDY_OTHER = "choose energy=rapl, which reads every tree of the kernel, or energy=model"
_DEVICES = (("package", ""), ("dram", "/dram"))


@final
class PyRaplSource(Source):
    """Reads `pyRAPL.Sensor().energy()` of pyRAPL 0.2.3.1: package and dram of each socket in uJ.

    Channels are `pyrapl:package-N` and `pyrapl:package-N/dram`. What pyRAPL does not do stays visible:

    * it does not give the counter's range, so a wrap is a counter that falls: a reset, whose joules are
      missing;
    * a reading that fails takes all sockets with it: a gap in all channels;
    * it answers -1 for what it cannot read, which is a gap; its None results and negative differences come
      of that, and are not used;
    * machines with several dies in a package, zones after a gap in the numbers or above 9, and closed
      counters make it raise when it is made: `SourceUnavailableError`.

    `library` answers like the module `pyRAPL`, which is taken when it is None.
    """

    name = "pyrapl"
    quality: Quality = "measured"

    def __init__(self, library: Any = None) -> None:
        self._given = library
        self.in_process = library is not None
        self._sensor: Any = None
        self._open: list[tuple[Channel, int]] = []

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(channel for channel, _ in self._open)

    def open(self) -> None:
        self.close()
        self._sensor = _sensor(self._given if self._given is not None else _pyrapl())
        try:
            values = self._sensor.energy()
        except Exception as error:
            self.close()
            raise _unavailable(error) from error
        self._open = [
            (_channel(socket, component, suffix), 2 * socket + offset)
            for socket in range(len(values) // 2)
            for offset, (component, suffix) in enumerate(_DEVICES)
            if values[2 * socket + offset] >= 0
        ]
        if not any(channel.component == "package" for channel in self.channels):
            self.close()
            raise SourceUnavailableError(
                "pyrapl", f"pyRAPL reads no package, only {list(values)}", _REMEDY_OTHER
            )

    def close(self) -> None:
        self._open = []
        sensor, self._sensor = self._sensor, None
        if sensor is not None:
            _close_files(sensor)

    def read(self) -> list[Reading]:
        if not self._open:
            raise ReadError("pyrapl", {"all channels": "the source is not open"})
        before_ns = time.monotonic_ns()
        try:
            values: Sequence[float] = self._sensor.energy()
        except Exception as error:
            raise ReadError(
                "pyrapl", {channel.name: f"{type(error).__name__}: {error}" for channel in self.channels}
            ) from error
        t_ns = (before_ns + time.monotonic_ns()) // 2
        readings = []
        failed = {}
        for channel, index in self._open:
            value = values[index] if index < len(values) else math.nan
            if 0 <= value < _LARGEST and value == int(value):
                readings.append(Reading(channel.name, t_ns, int(value)))
            else:
                failed[channel.name] = f"pyRAPL answers {value}, no amount of uJ"
        if failed:
            raise ReadError("pyrapl", failed, readings)
        return readings


def _sensor(library: Any) -> Any:
    """Make pyRAPL's reader, whatever it lets out: its own exceptions, OSError, ValueError, IndexError."""
    with warnings.catch_warnings():
        # It leaves the files of the CPUs' topology open; they close as soon as the error that holds them is gone.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return library.Sensor()
        except Exception as error:
            failure = _unavailable(error)
    raise failure


def _channel(socket: int, component: str, suffix: str) -> Channel:
    return Channel(
        name=f"pyrapl:package-{socket}{suffix}",
        component=component,
        in_total=True,
        unit_j=_UNIT_J,
        wrap=None,
        period_s=_PERIOD_S,
        device=f"pyRAPL socket {socket}",
    )


def _unavailable(error: Exception) -> SourceUnavailableError:
    if isinstance(error, PermissionError):
        return SourceUnavailableError("pyrapl", f"{error.filename} may be read by root only", _REMEDY_CLOSED)
    why = f"pyRAPL cannot read this machine ({type(error).__name__}: {error})"
    return SourceUnavailableError("pyrapl", why, _REMEDY_OTHER)


def _close_files(sensor: Any) -> None:
    """Close what pyRAPL opened: it keeps its files in private attributes and never closes them."""
    with contextlib.suppress(AttributeError):
        for api in sensor._device_api.values():
            for file in api._sys_files:
                file.close()


def _pyrapl() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its regular expressions, where it is compiled only now
            import pyRAPL
    except ImportError as error:
        raise SourceUnavailableError(
            "pyrapl", f"the module pyRAPL is missing ({error})", "python -m pip install pyRAPL"
        ) from error
    return pyRAPL
