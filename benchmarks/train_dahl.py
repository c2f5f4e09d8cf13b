"""One process of ``benchmarks.training``: images per second of this project. Takes its job as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from dahl import models, starpu
from dahl.context import Context
from dahl.datasets import Synthetic
from dahl.training import Hyperparameters, Trainer

WARM_UP_BATCHES = 5


def measure(runtime: starpu.Runtime, job: dict[str, Any]) -> dict[str, float]:
    """Images per second by ``model, batch``."""
    found = {}
    for model, images in job["images"].items():
        dataset = Synthetic(train_size=images, test_size=10).load()
        for batch in job["batches"]:
            hyperparameters = Hyperparameters(batch_size=batch, tile=min(16, batch))
            trainer = Trainer(Context(runtime), getattr(models, model)(), dataset, hyperparameters)
            trainer.run_epoch(0, max_batches=WARM_UP_BATCHES)
            result = trainer.run_epoch(1)
            found[f"{model}, batch {batch}"] = result.images / result.seconds
    return found


def main() -> None:
    """Measure once and print the answer."""
    job = json.loads(sys.argv[1])
    runtime = starpu.Runtime(cpu_workers=job["threads"], scheduler=job["scheduler"], trace=False)
    print(json.dumps(runtime.run(measure, job)))


if __name__ == "__main__":
    main()
