"""The tile of ``tile=auto``: the fastest of 16, 32, 64, ... images on this machine, measured once and kept.

`python -m experiments.granularity RUN_DIR OUT.json` measures, in a process of its own.
Only fused tasks leave the choice: their bits do not depend on a tile of 16, 32, 64, ... images.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dahl import starpu
from dahl.ops.micro_tiles import MICRO_TILE
from dahl.starpu.kernel import cache_root
from dahl.training import Trainer
from experiments import records
from experiments.calibration import signature
from experiments.events import EventWriter
from experiments.workload import Workload, load_workload

ROUNDS = 5
WARM_UP_BATCHES = 10
IMAGES = {"least": 1_024, "most": 32_768}
ROUND_S = 0.03
"""A round takes as many mini-batches as fill this time, as the first one tells."""


class GranularityError(RuntimeError):
    """The tiles could not be measured; the trial's log has the reason."""


def with_tile(run_dir: Path, workload: Workload, events: EventWriter) -> Workload:
    """Return the workload with a number for ``tile=auto``: 16 without fused tasks, else what was or is now measured."""
    if workload.config["tile"] != "auto":
        return workload
    unfused = min(MICRO_TILE, workload.config["batch_size"])
    tile = measured_tile(run_dir, workload, events) if workload.fuse else unfused
    return replace(workload, config={**workload.config, "tile": tile})


def measured_tile(run_dir: Path, workload: Workload, events: EventWriter) -> int:
    """Return the fastest tile; what is not in the cache is measured now, in seconds."""
    path = cache_root() / "tiles" / f"{signature(workload)}.json"
    if not path.exists():
        events.emit("calibrating", message="measuring tiles on this machine (once, a few seconds)")
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "experiments.granularity", str(run_dir), str(path)]
        if subprocess.run(command, check=False).returncode or not path.exists():
            raise GranularityError("the tiles could not be measured; tile=16 needs no measurement")
    return int(records.read_json(path)["tile"])


def candidates(batch_size: int) -> list[int]:
    """16, 32, 64, ... up to the mini-batch, and a whole mini-batch."""
    tiles, tile = [], MICRO_TILE
    while tile < batch_size:
        tiles.append(tile)
        tile *= 2
    # Larger than the mini-batch is the same as all of it, and bits then depend on the mini-batch alone.
    return [*tiles, min(tile, batch_size)]


def images_per_s(trainers: Mapping[int, Trainer]) -> dict[int, float]:
    """Return the median of alternated rounds by tile."""
    batches: dict[int, int] = {}
    for tile, trainer in trainers.items():
        trainer.run_epoch(0, max_batches=WARM_UP_BATCHES)
        seen = trainer.run_epoch(0, max_batches=WARM_UP_BATCHES)
        wanted = ROUND_S * seen.images / seen.seconds
        images = min(max(wanted, IMAGES["least"]), IMAGES["most"])
        batches[tile] = max(2, round(images * WARM_UP_BATCHES / seen.images))
    found: dict[int, list[float]] = {tile: [] for tile in trainers}
    for number in range(ROUNDS):
        for tile in list(trainers)[:: 1 if number % 2 == 0 else -1]:
            result = trainers[tile].run_epoch(1, max_batches=batches[tile])
            found[tile].append(result.images / result.seconds)
    return {tile: statistics.median(values) for tile, values in found.items()}


def measure(config: Mapping[str, Any], run_dir: Path, out: Path) -> None:
    """Time a run's workload in every tile under StarPU's lws, and write ``out`` whole."""
    from experiments.training import make_context, make_trainer

    scheduler = {"_target_": "schedulers.StarPUScheduler", "name": "lws"}
    workload = load_workload({**config, "scheduler": scheduler}, EventWriter(None))

    def inside(runtime: starpu.Runtime) -> dict[int, float]:
        context = make_context(runtime, workload)
        return images_per_s(
            {
                tile: make_trainer(context, replace(workload, config={**workload.config, "tile": tile}))
                for tile in candidates(config["batch_size"])
            }
        )

    found = workload.runtime(run_dir / "granularity").run(inside)
    fastest = max(found, key=lambda tile: found[tile])
    records.write_json(out, {"tile": fastest, "rounds": ROUNDS, "images_per_s": found})


def main() -> int:
    """Measure as asked."""
    parser = argparse.ArgumentParser(prog="python -m experiments.granularity", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="the run's folder, with its config.yaml")
    parser.add_argument("out", type=Path, help="the file to write")
    asked = parser.parse_args()
    measure(records.read_config(asked.run_dir), asked.run_dir, asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
