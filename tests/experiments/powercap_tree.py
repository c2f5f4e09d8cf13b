"""A powercap tree in a folder whose counter moves with what StarPU's workers of this process really do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.energy.powercap import PACKAGE_RANGE_UJ, add_zone


class BusyTree:
    """One package: watts of its base, and of each second of processor time of a worker, by what runs at the moment."""

    def __init__(self, root: Path, base_w: float, watts: Mapping[str, float]) -> None:
        self.root = root
        self.running = ""
        self._file = add_zone(root, "intel-rapl:0", "package-0", 0) / "energy_uj"
        (root / "intel-rapl").mkdir()
        self._base_w, self._watts = base_w, watts
        self._joules, self._t_s = 0.0, time.monotonic()
        self.cpu_s = dict.fromkeys(watts, 0.0)
        """Processor time of the workers, by what ran."""
        self._cpu_s: dict[str, float] = {}
        self._stop = threading.Event()

    def run(self, name: str) -> None:
        """What runs from now on."""
        self.running = name

    @contextmanager
    def moving(self) -> Iterator[BusyTree]:
        """Move the counter about every millisecond."""
        thread = threading.Thread(target=self._move, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _move(self) -> None:
        with open(self._file, "r+") as file:
            while not self._stop.wait(0.0005):
                now_s, busy_s = time.monotonic(), self._busy_s()
                self.cpu_s[self.running] += busy_s
                self._joules += self._base_w * (now_s - self._t_s) + self._watts[self.running] * busy_s
                self._t_s = now_s
                file.seek(0)
                file.write(f"{round(self._joules * 1e6) % (PACKAGE_RANGE_UJ + 1)}\n")
                file.flush()

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
            taken_s += cpu_s - self._cpu_s.get(folder.name, cpu_s)
            self._cpu_s[folder.name] = cpu_s
        return taken_s
