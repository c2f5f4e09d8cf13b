"""A powercap tree in a folder whose counter moves with what StarPU's workers of this process really do."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import final

from energy import Channel, Quality, RaplSource, Reading, Source
from tests.energy.powercap import PACKAGE_RANGE_UJ, add_zone, set_uj


@final
class BusyTree(Source):
    """One package: watts of its base, and of each second of processor time of a worker, by what runs at the moment.

    It is moved before each reading of RAPL's, so that no other process can make it late.
    """

    name = "rapl"
    quality: Quality = "measured"
    in_process = True

    def __init__(self, root: Path, base_w: float, watts: Mapping[str, float]) -> None:
        self.running = ""
        self.cpu_s = dict.fromkeys(watts, 0.0)
        """Processor time of the workers, by what ran."""
        add_zone(root, "intel-rapl:0", "package-0", 0)
        (root / "intel-rapl").mkdir()
        self._rapl, self._root = RaplSource(root), root
        self._base_w, self._watts = base_w, watts
        self._joules, self._t_s = 0.0, time.monotonic()
        self._known_s: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def channels(self) -> tuple[Channel, ...]:
        return self._rapl.channels

    def open(self) -> None:
        self._rapl.open()

    def close(self) -> None:
        self._rapl.close()

    def read(self) -> list[Reading]:
        with self._lock:
            self._move()
            return self._rapl.read()

    def run(self, name: str) -> None:
        """What runs from now on."""
        with self._lock:
            self._move()
            self.running = name

    def _move(self) -> None:
        now_s, busy_s = time.monotonic(), self._busy_s()
        self.cpu_s[self.running] += busy_s
        self._joules += self._base_w * (now_s - self._t_s) + self._watts[self.running] * busy_s
        self._t_s = now_s
        set_uj(self._root, "intel-rapl:0", round(self._joules * 1e6) % (PACKAGE_RANGE_UJ + 1))

    def _busy_s(self) -> float:
        """Processor time that the workers' threads took since the last call."""
        taken_s = 0.0
        for folder in Path("/proc/self/task").iterdir():
            try:
                if not (folder / "comm").read_text().startswith("CPU "):
                    continue
                # A thread's processor clock, as pthread_getcpuclockid(3) numbers it.
                cpu_s = time.clock_gettime((~int(folder.name) << 3) | 6)
            except OSError:  # it has ended
                continue
            taken_s += cpu_s - self._known_s.get(folder.name, cpu_s)
            self._known_s[folder.name] = cpu_s
        return taken_s
