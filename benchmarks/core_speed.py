"""How fast the cores are at the moment: a shared machine's are slower at some hours than at others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import final

import numpy as np
from threadpoolctl import threadpool_limits

SIZE = 384
PROBE_S = 0.03
FULL = 0.9
"""A core is at full speed from this share of the fastest probe on."""
WAIT_S = 30.0


def gflop_per_s(cores: int) -> float:
    """The rate of the slowest of `cores` threads that each multiply float32 matrices of their own at the same time."""
    rates = [0.0] * cores
    start = threading.Barrier(cores)

    def multiply(place: int) -> None:
        a = np.full((SIZE, SIZE), 1.0 / SIZE, np.float32)
        b, out = a.copy(), np.empty_like(a)
        np.matmul(a, b, out)
        start.wait()
        begin_s, products = time.perf_counter(), 0
        while time.perf_counter() - begin_s < PROBE_S:
            np.matmul(a, b, out)
            products += 1
        rates[place] = products * 2e-9 * SIZE**3 / (time.perf_counter() - begin_s)

    threads = [threading.Thread(target=multiply, args=(place,)) for place in range(cores)]
    with threadpool_limits(1):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return min(rates)


@final
class Steady:
    """Repeats what was measured while the cores were slower than they can be.

    `probe` returns a rate, `pause` waits so many seconds. Full speed is that of the fastest of all probes so far.
    """

    def __init__(
        self, probe: Callable[[], float], tries: int = 3, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._probe, self._tries, self._pause = probe, tries, pause
        self._fastest = max(probe() for _ in range(20))
        self.slow = 0
        """Steps that were kept although the cores were slow in all tries."""

    def best_of(self, attempts: Sequence[Callable[[], None]]) -> int:
        """Make attempts until the cores were at full speed before and after one; return the place of that one.

        Of attempts that were all slow it is the fastest.
        """
        speeds: list[float] = []
        for attempt in attempts[: self._tries]:
            before = self._wait_for_full_speed()
            attempt()
            speeds.append(min(before, self._now()))
            if speeds[-1] >= FULL * self._fastest:
                return len(speeds) - 1
        self.slow += 1
        return int(np.argmax(speeds))

    def _wait_for_full_speed(self) -> float:
        waited_s = 0.0
        while (speed := self._now()) < FULL * self._fastest and waited_s < WAIT_S:
            self._pause(1.0)
            waited_s += 1.0
        return speed

    def _now(self) -> float:
        """The median of three probes, which one hiccup does not change."""
        speed = float(np.median([self._probe() for _ in range(3)]))
        self._fastest = max(self._fastest, speed)
        return speed
