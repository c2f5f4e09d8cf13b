"""`peer_readings.py READER TREE COUNT`: what one reading of a powercap tree costs with somebody else's reader.

Run by `benchmarks.sampler` with an interpreter that has the reader; imports nothing of this project.
Prints one JSON object: microseconds of processor time a reading and the counters that it read, or `missing`.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Reader = tuple[Callable[[], Any], int]
"""Reads once, and how many counters that reads."""


def pyrapl(tree: Path) -> Reader:
    """pyRAPL's `Sensor.energy`, which keeps its files open; it finds packages and dram."""
    import pyRAPL
    from pyRAPL import device_api

    def moved(path: Any) -> Any:
        return str(path).replace("/sys/class/powercap", str(tree))

    class Files:
        """`os.path.exists` of the tree."""

        class path:
            @staticmethod
            def exists(path: str) -> bool:
                return os.path.exists(moved(path))

    device_api.open = lambda path, mode="r": builtins.open(moved(path), mode)  # noqa: SIM115 (who opens it closes it)
    device_api.os = Files
    device_api.get_socket_ids = lambda: [0]
    return pyRAPL.Sensor().energy, 2


def codecarbon(tree: Path) -> Reader:
    """CodeCarbon's `IntelRAPL.get_cpu_details`, which opens its files for each reading; packages only by default."""
    from codecarbon.core.cpu import IntelRAPL
    from codecarbon.core.units import Time

    rapl = IntelRAPL(rapl_dir=str(tree))
    second = Time.from_seconds(1.0)
    return lambda: rapl.get_cpu_details(second), len(rapl._rapl_files)


def zeus(tree: Path) -> Reader:
    """Zeus's `RAPLCPU.get_total_energy_consumption`, which opens its files for each reading.

    The processes that it starts to count wraps are not in the figure.
    """
    from zeus.device.cpu.rapl import RAPLCPU

    cpu = RAPLCPU(0, str(tree / "intel-rapl"))
    return cpu.get_total_energy_consumption, 2


READERS = {"pyRAPL": pyrapl, "CodeCarbon": codecarbon, "Zeus": zeus}


def main() -> None:
    """Measure one reader."""
    name, tree, count = sys.argv[1:]
    try:
        read, counters = READERS[name](Path(tree))
    except ImportError as error:
        print(json.dumps({"missing": f"{name} is not installed ({error})"}))
        return
    read()
    start_s = time.process_time()
    for _ in range(int(count)):
        read()
    us = (time.process_time() - start_s) / int(count) * 1e6
    print(json.dumps({"us": us, "counters": counters}))


if __name__ == "__main__":
    main()
