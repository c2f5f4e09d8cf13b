"""Images per second of training on one GPU, this project beside PyTorch on the same card, in alternated processes.

PyTorch runs eager, with channels_last, compiled, and its whole step as a CUDA graph, each in float32 and with TF32.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks import measuring

IMAGES, EPOCHS = 262_144, 4
"""Of one measurement: some tenths of a second on a fast card."""
WAYS = ("eager", "channels_last", "compiled", "graphs", "compiled graphs")
Run = Callable[[Mapping[str, Any]], dict[str, Any]]


def no_card(nvml: Any) -> str | None:
    """Say why nothing can be measured, as NVML (``pynvml``) tells; None where there is a card."""
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
        nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        reason = f"NVML says: {error}"
    else:
        if count:
            return None
        reason = "the driver lists none"
    return f"--gpu measures on an NVIDIA GPU, and there is none here ({reason}); without --gpu CPU cores are measured"


def cases(chosen: argparse.Namespace, ours: Run, pytorch: Run | None) -> dict[str, measuring.Case]:
    """Who is measured, and how."""
    images = dict.fromkeys(chosen.models, chosen.images or IMAGES)
    job = {"images": images, "batches": chosen.batches, "epochs": EPOCHS, "device": "cuda"}
    tiles = {f"{model}, batch {batch}": batch for model in chosen.models for batch in chosen.batches}
    own = {"threads": 0, "gpus": 1, "what": "rates", "tiles": tiles, "scheduler": chosen.scheduler}
    found: dict[str, measuring.Case] = {
        "dahl, 1 GPU": partial(ours, {**job, **own, "fuse": not chosen.unfused})
    }
    ways = [way for way in WAYS if not (chosen.no_compile and way.startswith("compiled"))]
    if pytorch:
        found["PyTorch, 1 GPU"] = partial(pytorch, {**job, "threads": 1, "ways": ways})
    return found


def ratios(found: Mapping[str, Mapping[str, measuring.Spread]]) -> dict[str, dict[str, float]]:
    """This project's median over PyTorch's best, by ``model, batch``: of float32, and of all that PyTorch does."""
    made: dict[str, dict[str, float]] = {}
    for what, own in found["dahl, 1 GPU"].items():
        theirs = {
            key.partition("; ")[2]: spread.median
            for key, spread in found.get("PyTorch, 1 GPU", {}).items()
            if key.partition("; ")[0] == what
        }
        if theirs:
            float32 = [median for way, median in theirs.items() if not way.endswith("TF32")]
            made[what] = {
                "in float32": own.median / max(float32),
                "with TF32": own.median / max(theirs.values()),
            }
    return made


def main(chosen: argparse.Namespace, ours: Run, pytorch: Run | None, version: str | None) -> int:
    """Measure, print, record; 1 where there is no card."""
    reason = no_card(importlib.import_module("pynvml"))
    if reason:
        print(reason, file=sys.stderr)
        return 1
    machine = measuring.Machine()
    found = measuring.alternate(cases(chosen, ours, pytorch), chosen.rounds)
    compared = ratios(found)
    rows = [
        [f"{who}, {key.partition('; ')[2]}".rstrip(", "), key.partition("; ")[0], spread.text(0)]
        for who, spreads in found.items()
        for key, spread in spreads.items()
    ]
    notes = [
        f"{what}: {r['in float32']:.2f} x the best PyTorch in float32, {r['with TF32']:.2f} x with TF32"
        for what, r in compared.items()
    ]
    last = f"PyTorch {version}" if version else "no PyTorch here, so nothing is compared"
    measuring.show(
        f"images/s of training on a GPU, {chosen.rounds} rounds",
        ["", "model, batch", "images/s"],
        sorted(rows, key=lambda row: row[1]),
        [*notes, last, machine.line()],
    )
    measuring.record(
        chosen.json,
        "training_gpu",
        machine,
        pytorch=version,
        fused=not chosen.unfused,
        images_per_s=found,
        times_the_best_pytorch=compared,
    )
    return 0
