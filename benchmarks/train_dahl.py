"""One process of ``benchmarks.training``: images per second of this project. Takes its job as JSON."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dahl import models, starpu
from dahl.context import Context
from dahl.datasets import Synthetic
from dahl.training import Hyperparameters, Trainer
from energy import activity_energy, power_model_for
from experiments.granularity import candidates

WARM_UP_BATCHES = 5
TRACED_EPOCHS = 5
WATTS = Path(__file__).parents[1] / "configs" / "energy" / "model.yaml"


def _trainer(runtime: starpu.Runtime, model: str, dataset: Any, batch: int, tile: int, fuse: bool) -> Trainer:
    hyperparameters = Hyperparameters(batch_size=batch, tile=tile, fuse=fuse)
    trainer = Trainer(Context(runtime), getattr(models, model)(), dataset, hyperparameters)
    trainer.run_epoch(0, max_batches=WARM_UP_BATCHES)
    return trainer


def rates(runtime: starpu.Runtime, job: dict[str, Any]) -> dict[str, float]:
    """Images per second by ``model, batch``."""
    found = {}
    for model, images in job["images"].items():
        dataset = Synthetic(train_size=images, test_size=10).load()
        for batch in job["batches"]:
            name = f"{model}, batch {batch}"
            trainer = _trainer(runtime, model, dataset, batch, job["tiles"][name], job["fuse"])
            results = [trainer.run_epoch(1 + number) for number in range(job.get("epochs", 1))]
            found[name] = sum(one.images for one in results) / sum(one.seconds for one in results)
    return found


def tiles(runtime: starpu.Runtime, job: dict[str, Any]) -> dict[str, dict[int, dict[str, float]]]:
    """Medians by ``model, batch`` and tile; the tiles alternate, epoch by epoch."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for model, images in job["images"].items():
        dataset = Synthetic(train_size=images, test_size=10).load()
        for batch in job["batches"]:
            sizes = [job["tile"]] if job["tile"] else candidates(batch)
            trainers = {tile: _trainer(runtime, model, dataset, batch, tile, job["fuse"]) for tile in sizes}
            epochs: dict[int, list[dict[str, float]]] = {tile: [] for tile in sizes}
            for epoch in range(TRACED_EPOCHS):
                for tile, trainer in trainers.items():
                    epochs[tile].append(_traced(runtime, trainer, epoch))
            found[f"{model}, batch {batch}"] = {
                tile: {name: statistics.median(one[name] for one in seen) for name in seen[0]}
                for tile, seen in epochs.items()
            }
    return found


def _traced(runtime: starpu.Runtime, trainer: Trainer, epoch: int) -> dict[str, float]:
    """Images per second, the share of the workers' time that no kernel ran, and joules at the assumed watts."""
    runtime.take_trace()
    result = trainer.run_epoch(epoch)
    trace = runtime.take_trace()
    assumed: Any = OmegaConf.to_container(OmegaConf.load(WATTS))
    watts = power_model_for(assumed["model"], [worker.arch for worker in runtime.workers])
    joules = activity_energy(watts, trace, result.start_s, result.end_s)
    in_kernels_s = float((trace["end_s"] - trace["start_s"]).sum())
    return {
        "images_per_s": result.images / result.seconds,
        "outside_kernels": 1.0 - in_kernels_s / (result.seconds * len(runtime.workers)),
        "estimated_j_per_1000_images": 1000 * sum(one.gross_j for one in joules.values()) / result.images,
        "tasks_per_batch": float(trainer.tasks_per_batch),
    }


def main() -> None:
    """Measure once and print the answer."""
    job = json.loads(sys.argv[1])
    what = {"rates": rates, "tiles": tiles}[job["what"]]
    runtime = starpu.Runtime(
        cpu_workers=job["threads"],
        gpu_workers=job.get("gpus", 0),
        scheduler=job["scheduler"],
        trace=job["what"] == "tiles",
    )
    print(json.dumps(runtime.run(what, job)))


if __name__ == "__main__":
    main()
