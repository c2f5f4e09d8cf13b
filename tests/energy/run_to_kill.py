"""A run that counts window after window until it is killed: `run_to_kill.py FOLDER ZERO_NS`.

Prints the sampler's process once it measures, writes each window's joules to `windows`, and ends by itself where
`enough` has come.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from energy import EnergySession, PowerStream
from energy.process_sampler import ProcessSampler
from tests.energy.sources import ClockSource


def main(folder: Path, zero_ns: int) -> None:
    stream = PowerStream(folder / "power")
    with (
        EnergySession([ClockSource(zero_ns)], stream=stream, rate_hz=1000) as session,
        open(folder / "windows", "a", buffering=1) as windows,
    ):
        assert isinstance(session._sampler, ProcessSampler)
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
    main(Path(sys.argv[1]), int(sys.argv[2]))
