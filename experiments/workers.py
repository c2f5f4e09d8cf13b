"""Which workers a trial asks for, CPU cores and GPUs, and what becomes of it where there is no GPU to be used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from dahl.starpu import binding, gpu_probe
from experiments.events import EventWriter
from experiments.probe_answers import answer_of
from experiments.validation import CHECKOUT

TIME_LIMIT_S = 60.0
"""A driver that starts up may take seconds."""


def gpu_workers(config: Mapping[str, Any]) -> int | None:
    """How many GPU workers a run on this machine starts; None is all that there are."""
    if config["platform"].get("simulated", True):
        return 0
    wanted = config.get("gpu_workers", 0)
    return None if wanted == "all" else int(wanted)


def variant_of(config: Mapping[str, Any]) -> str:
    """The variant of StarPU that a run takes."""
    if config["platform"].get("simulated", True):
        return "simgrid"
    return "native" if gpu_workers(config) == 0 else "cuda"


def gpu_names(config: Mapping[str, Any]) -> list[str]:
    """The names of this machine's GPUs, as CUDA tells them; none for a run without GPU workers."""
    if gpu_workers(config) == 0:
        return []
    module = binding.load("cuda")
    return [device.name for device in gpu_probe.probe(module.ffi, module.lib).devices]


def with_usable_gpus(config: Mapping[str, Any], events: EventWriter) -> dict[str, Any]:
    """The configuration without GPU workers where none can be used and `without_gpu=cpu` asks to go on; says why.

    The question is asked in a process of its own, since a process holds one variant of StarPU. Otherwise StarPU's start
    refuses, with the reason.
    """
    if gpu_workers(config) == 0 or config.get("without_gpu") != "cpu":
        return dict(config)
    wanted, limit = config["gpu_workers"], config.get("gpu_memory_mib")
    started = subprocess.Popen(
        [sys.executable, "-m", "experiments.probes", "cuda"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env={
            **os.environ,
            "DAHL_PROBE_GPUS": str(wanted),
            "DAHL_PROBE_MIB": "" if limit is None else str(limit),
        },
    )
    answer = answer_of(started, TIME_LIMIT_S, TIME_LIMIT_S)
    if "error" not in answer:
        return dict(config)
    events.emit("notice", message=f"without_gpu=cpu: this run takes CPU cores only, for {answer['error']}")
    return {**config, "gpu_workers": 0, "without_gpu_because": answer["error"]}
