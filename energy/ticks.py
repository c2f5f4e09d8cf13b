"""Readings that C takes at a timer's ticks, for Python to count many at a time."""

from __future__ import annotations

import importlib
import os
from functools import cache
from types import ModuleType
from typing import Any, Literal, final

from energy.source import RawFiles
from energy.timer import PeriodicTimer

Loop = Literal["native", "python"]
"""What reads a source's counters at the timer's ticks."""

REMEDY = "python -m energy.build"

_FORMS = {"digits": "TICKS_DIGITS", "uint64": "TICKS_UINT64"}


@cache
def native_loop() -> ModuleType | None:
    """The compiled module; None where it is not compiled."""
    try:
        return importlib.import_module("energy._ticks")
    except ImportError:
        return None


@final
class NativeTicks:
    """Reads `files` at a timer's ticks and in between, and holds up to `capacity` readings in their order.

    `run` is for one thread; `read` and `take` are for any, one at a time. None of them holds Python's lock while it
    waits or reads. Raises `RuntimeError` where the module is not compiled.
    """

    def __init__(self, files: RawFiles, capacity: int) -> None:
        module = native_loop()
        if module is None:
            raise RuntimeError(f"the sampler's native loop is not compiled: run `{REMEDY}`")
        self._ffi, self._lib = module.ffi, module.lib
        self._files = len(files.descriptors)
        form = getattr(self._lib, _FORMS[files.form])
        made = self._lib.ticks_new(self._files, files.descriptors, form, capacity)
        if made == self._ffi.NULL:
            raise MemoryError("no memory for the sampler's readings")
        self._ticks = self._ffi.gc(made, self._lib.ticks_free)
        self.woken_ns: list[int] = []
        """When the loop woke up for each tick whose reading was taken; emptied by whom it concerns."""
        self.ticks: list[int] = []
        """How many ticks had passed each time."""

    def run(self, timer: PeriodicTimer, readings: int) -> bool:
        """Read at each tick until `readings` are held; False once stopped. Raises `OSError`."""
        status: int = self._lib.ticks_run(self._ticks, timer.descriptor, readings)
        _check(status)
        return status > 0

    def read(self) -> None:
        """Read once more, now."""
        _check(self._lib.ticks_read(self._ticks))

    def stop(self) -> None:
        """Let `run` end at the next tick."""
        self._lib.ticks_stop(self._ticks)

    def take(self) -> tuple[list[int], list[Any]]:
        """What is held, file after file, reading after reading: times in ns, and what was read.

        That is the counts; the bytes where they are no number of 63 bits; or as a text why nothing was read.
        """
        unpack, batch = self._ffi.unpack, self._lib.ticks_take(self._ticks)
        readings: int = batch.readings
        if readings == 0:
            return [], []
        cells = readings * self._files
        values: list[Any] = unpack(batch.counts, cells)
        if batch.failed:
            for cell, state in enumerate(unpack(batch.states, cells)):
                if state:
                    values[cell] = self._without_count(batch, cell, state)
        for woken_ns, ticks in zip(
            unpack(batch.woken_ns, readings), unpack(batch.ticks, readings), strict=True
        ):
            if ticks:  # else it was no tick that asked for it
                self.woken_ns.append(woken_ns)
                self.ticks.append(ticks)
        return unpack(batch.t_ns, cells), values

    def _without_count(self, batch: Any, cell: int, state: int) -> bytes | str:
        if state != self._lib.TICKS_NO_COUNT:
            return os.strerror(state)
        at = batch.bytes + cell * self._lib.TICKS_BYTES
        return bytes(self._ffi.buffer(at, batch.lengths[cell]))


def _check(status: int) -> None:
    if status < 0:
        raise OSError(-status, f"reading at ticks: {os.strerror(-status)}")
