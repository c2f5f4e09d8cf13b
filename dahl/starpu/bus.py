"""How fast data move between main memory and GPUs: measured once by StarPU, and kept for every later run.

StarPU measures it when it starts and finds no file, for seconds, and resets the GPUs in doing so. Every run has files
of its own, so they are measured in a process of its own (``python -m dahl.starpu.bus FOLDER``) and copied to each run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from dahl.starpu.errors import GpuError
from dahl.starpu.gpu_probe import GpuProbe
from dahl.starpu.kernel import cache_root

_DONE = "cuda.config"


def kept_for(found: GpuProbe) -> Path:
    """Return the folder for these GPUs, this driver and these cores."""
    devices = [(device.name, device.pci_bus_id, device.capability) for device in found.devices]
    facts = repr((devices, found.driver, found.runtime, os.cpu_count()))
    return cache_root() / "starpu" / f"bus-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"


def provide(models: Path, found: GpuProbe) -> None:
    """Put the measured files into a run's folder of models. Raises GpuError where they cannot be measured."""
    bus = models / "bus"
    if (bus / _DONE).exists():
        return
    kept = kept_for(found) / "models" / "bus"
    if not (kept / _DONE).exists():
        done = subprocess.run(
            [sys.executable, "-m", "dahl.starpu.bus", str(kept_for(found))],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not (kept / _DONE).exists():
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise GpuError(f"the links to the GPUs could not be measured: {last}")
    shutil.copytree(kept, bus, dirs_exist_ok=True)


def main() -> int:
    """Let StarPU measure, into the folder that is named."""
    from dahl.starpu.runtime import Runtime

    folder = Path(sys.argv[1])
    with Runtime(cpu_workers=1, gpu_workers=None, home=folder, scheduler="eager", measures_bus=True):
        return 0


if __name__ == "__main__":
    sys.exit(main())
