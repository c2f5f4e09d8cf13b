"""A run that counts window after window until it is killed: `run_to_kill.py FOLDER ZERO_NS clock|files`.

Its counter is a clock, read by Python, or a file that shows one, read natively.
Prints the sampler's process once it measures, writes each window's joules to `windows`, and ends by itself where
`enough` has come.
"""

from __future__ import annotations

import json
import mmap
import sys
import threading
import time
from pathlib import Path

from energy import EnergySession, PowerStream, RaplSource, Source
from energy.process_sampler import ProcessSampler
from tests.energy.powercap import add_zone
from tests.energy.sources import ClockSource


def digits(clock: ClockSource) -> bytes:
    """What the clock shows now."""
    return f"{clock.raw(time.monotonic_ns()):08d}".encode()


def show_the_clock(clock: ClockSource, file: Path) -> None:
    """Let the file show what the clock shows, from now on: 8 digits, written by one store."""
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 8) as memory:
        number = memoryview(memory).cast("Q")
        while True:
            number[0] = int.from_bytes(digits(clock), sys.byteorder)
            time.sleep(0.0005)


def make_source(folder: Path, zero_ns: int, kind: str) -> Source:
    """The counter."""
    clock = ClockSource(zero_ns)
    if kind == "clock":
        return clock
    zone = add_zone(folder / "tree", "intel-rapl:0", "package-0", 0)
    (zone / "energy_uj").write_bytes(digits(clock))
    threading.Thread(target=show_the_clock, args=(clock, zone / "energy_uj"), daemon=True).start()
    return RaplSource(folder / "tree")


def main(folder: Path, zero_ns: int, kind: str) -> None:
    stream = PowerStream(folder / "power")
    with (
        EnergySession([make_source(folder, zero_ns, kind)], stream=stream, rate_hz=1000) as session,
        open(folder / "windows", "a", buffering=1) as windows,
    ):
        assert isinstance(session._sampler, ProcessSampler)
        assert set(session.loops.values()) == {"python" if kind == "clock" else "native"}
        print(session._sampler.pid, flush=True)
        index = 0
        while not (folder / "enough").exists():
            with session.window("epoch", index) as window:
                time.sleep(0.01)
            energy = window.energy
            row = (index, energy.start_t_ns, energy.end_t_ns, energy.total_j, session.trouble)
            windows.write(json.dumps(row) + "\n")
            index += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
