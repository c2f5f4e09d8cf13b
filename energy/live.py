"""Live watts in memory that processes share: a sampler writes them, policies and displays read them."""

from __future__ import annotations

import math
import mmap
import os
import struct
import zlib
from typing import final

import numpy as np

_SIZE = 1 << 14
_POLICY = struct.Struct("@dd")
_CLOCK = struct.Struct("@d")
_CLOCK_AT = 16
_SLOTS_AT = 64
_SLOT = struct.Struct("@qd")
_CHECKSUM = struct.Struct("@I")
_SLOT_SIZE = 32
_TRIES = 100


@final
class LivePage:
    """A page of shared memory with the watts of the whole machine and of each channel.

    It starts with two float64 for policies: the second, on their clock, at which the watts were read, and the
    watts of all channels in the total; NaN where one of them is not known. `array` is these two.
    Then comes what has to be added to `time.monotonic()` to get the policies' clock, then a slot for each
    channel, with a checksum: a reader takes a slot that was half written for none.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        """Make a page, or map the one that another process has made and handed on."""
        made = descriptor is None
        self.descriptor = os.memfd_create("live-watts", os.MFD_CLOEXEC) if descriptor is None else descriptor
        if made:
            os.ftruncate(self.descriptor, _SIZE)
        self._memory = mmap.mmap(self.descriptor, _SIZE)
        self.array = np.frombuffer(self._memory, np.float64, 2)
        if made:
            self.tie_clock(0.0)
            self.forget()

    def tie_clock(self, offset_s: float) -> None:
        """Say what has to be added to `time.monotonic()` to get the clock on which policies live."""
        _CLOCK.pack_into(self._memory, _CLOCK_AT, offset_s)

    def write_total(self, t_ns: int, watts: float) -> None:
        """The watts of the machine, read at `t_ns`. Watts first: a fresh stamp never stands over old watts."""
        (offset_s,) = _CLOCK.unpack_from(self._memory, _CLOCK_AT)
        self.array[1] = watts
        self.array[0] = t_ns * 1e-9 + offset_s

    def write(self, slot: int, t_ns: int, watts: float) -> None:
        """The watts of one channel, read at `t_ns`; channels beyond the last slot are not kept."""
        at = _SLOTS_AT + slot * _SLOT_SIZE
        if at + _SLOT_SIZE <= _SIZE:
            body = _SLOT.pack(t_ns, watts)
            self._memory[at : at + _SLOT.size + _CHECKSUM.size] = body + _CHECKSUM.pack(zlib.crc32(body))

    def read(self, slot: int) -> tuple[int, float] | None:
        """When a channel was last read and its watts; None where they are not known."""
        at = _SLOTS_AT + slot * _SLOT_SIZE
        if at + _SLOT_SIZE > _SIZE:
            return None
        for _ in range(_TRIES):
            data = self._memory[at : at + _SLOT.size + _CHECKSUM.size]
            if zlib.crc32(data[: _SLOT.size]) == _CHECKSUM.unpack_from(data, _SLOT.size)[0]:
                t_ns, watts = _SLOT.unpack_from(data)
                return None if math.isnan(watts) else (t_ns, watts)
        return None  # its writer was killed in the middle of it

    def forget(self) -> None:
        """Take back all watts, since nobody reads the counters any more."""
        self.array[:] = math.nan
        for slot in range((_SIZE - _SLOTS_AT) // _SLOT_SIZE):
            self.write(slot, 0, math.nan)

    def close(self) -> None:
        """Hand no more copies of the page to other processes; who has mapped it keeps it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
