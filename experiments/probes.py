"""`python -m experiments.probes NAME`: one question to this machine, answered as JSON.

Each is asked in a process that may die of it: loading a broken library can abort or hang, and StarPU's two
variants cannot share a process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def native() -> dict[str, Any]:
    """StarPU for this machine, and the workers that it starts here."""
    from dahl import starpu

    with tempfile.TemporaryDirectory() as home, starpu.Runtime(home=Path(home)) as runtime:
        workers = [f"{worker.name} ({worker.arch})" for worker in runtime.workers]
    return {
        "version": starpu.version("native"),
        "policies": sorted(starpu.schedulers("native")),
        "workers": workers,
    }


def cuda() -> dict[str, Any]:
    """StarPU for GPUs and those that a run could use; an error where it cannot use as many as are asked for."""
    from dahl.starpu import StarPUError, binding, gpu_probe

    wanted, limit = os.environ.get("DAHL_PROBE_GPUS"), os.environ.get("DAHL_PROBE_MIB")
    module = binding.load("cuda")
    found = gpu_probe.probe(module.ffi, module.lib)
    answer = {"version": binding.version("cuda"), "policies": sorted(binding.schedulers("cuda"))}
    try:
        count = gpu_probe.usable(
            found, int(wanted) if wanted not in (None, "all") else max(1, len(found.devices))
        )
        gpu_probe.memory_limits(module.ffi, module.lib, count, int(limit) if limit else None)
    except StarPUError as error:
        if wanted is not None:
            raise
        return {**answer, "why": f"no GPU can be used: {error}"}
    return {
        **answer,
        "gpus": [f"GPU {device.number} ({device.name}, {device.pci_bus_id})" for device in found.devices],
    }


def simgrid() -> dict[str, Any]:
    """StarPU on SimGrid; its workers are those of the platform."""
    from dahl import starpu

    return {"version": starpu.version("simgrid"), "policies": sorted(starpu.schedulers("simgrid"))}


def energy() -> dict[str, Any]:
    """The energy sources, and for each that is absent why and the remedy."""
    from energy import Present, availability

    found: dict[str, Any] = {}
    for state in availability():
        if isinstance(state, Present):
            left_out = dict(state.left_out)
            found[state.name] = {
                "channels": [channel.name for channel in state.channels],
                "left_out": left_out,
            }
        else:
            found[state.name] = {"why": state.why, "remedy": state.remedy}
    return found


def sampler() -> dict[str, Any]:
    """What reads counters that are files."""
    from energy.ticks import REMEDY, native_loop

    if native_loop() is None:
        return {"loop": "python", "why": "the native loop is not compiled", "remedy": REMEDY}
    return {"loop": "native"}


def datasets() -> dict[str, Any]:
    """The data sets, and for each that is absent what to do."""
    from dahl.datasets import availability
    from experiments.validation import CHECKOUT

    return {state.name: dataclasses.asdict(state) for state in availability(CHECKOUT / ".cache" / "datasets")}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "native": native,
    "simgrid": simgrid,
    "cuda": cuda,
    "energy": energy,
    "sampler": sampler,
    "datasets": datasets,
}


def main() -> int:
    """Answer the question named on the command line."""
    try:
        answer = PROBES[sys.argv[1]]()
    except Exception as error:
        answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
