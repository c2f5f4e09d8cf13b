"""Memory of a training process by epoch: resident now, and the most so far.

Few mini-batches are submitted ahead, and the trace is taken after each epoch, as a run
does. So from the second epoch on nothing may grow.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from threadpoolctl import threadpool_limits

from benchmarks import measuring
from dahl import models, starpu
from dahl.context import Context
from dahl.datasets import Dataset, FashionMnist, Synthetic
from dahl.training import Hyperparameters, Trainer

EPOCHS = 6
FLAT_MIB = 2.0
"""Growth after epoch 2 that still counts as flat: StarPU and malloc fill caches of their own."""


@final
@dataclass(frozen=True)
class Point:
    """Memory of the process at one moment, in MiB, and what the epoch before it did."""

    when: str
    resident_mib: float
    peak_mib: float
    tasks: int = 0
    images_per_s: float = float("nan")


def memory_mib(status: Path = Path("/proc/self/status")) -> tuple[float, float]:
    """Resident memory of a process now, and its peak (VmRSS and VmHWM of proc(5)), in MiB."""
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    resident, peak = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return resident, peak


def train(dataset: Dataset, epochs: int, scheduler: str, batch_size: int, workers: int) -> list[Point]:
    """Train ``basic_cnn`` and return the memory before and after each epoch."""
    points = [Point("data set loaded", *memory_mib())]

    def main(runtime: starpu.Runtime) -> None:
        hyperparameters = Hyperparameters(batch_size=batch_size, tile=min(16, batch_size), fuse=True)
        trainer = Trainer(Context(runtime), models.basic_cnn(), dataset, hyperparameters)
        points.append(Point("before training", *memory_mib()))
        for epoch in range(1, epochs + 1):
            start = time.perf_counter()
            result = trainer.run_epoch(epoch)
            seconds = time.perf_counter() - start
            tasks = runtime.take_trace().size
            trainer.evaluate()
            tasks += runtime.take_trace().size
            points.append(Point(f"epoch {epoch}", *memory_mib(), tasks, result.images / seconds))

    starpu.Runtime(cpu_workers=workers, scheduler=scheduler).run(main)
    return points


def load(images: int) -> Dataset:
    """Fashion-MNIST where it is at hand and no number of images is asked for, else as many made-up ones."""
    if not images and FashionMnist().availability().found:
        return FashionMnist().load()
    return Synthetic(train_size=images or 60_000, test_size=max(10, (images or 60_000) // 6)).load()


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options("Memory of a training process by epoch.", rounds=False)
    parser.add_argument("--epochs", type=measuring.positive, default=EPOCHS, help=f"default {EPOCHS}")
    parser.add_argument("--images", type=measuring.positive, default=0, help="made-up; default Fashion-MNIST")
    parser.add_argument("--batch", type=measuring.positive, default=64, help="default 64")
    parser.add_argument("--workers", type=measuring.positive, default=measuring.cores(), help="default all")
    parser.add_argument("--scheduler", default="lws", help="one of StarPU's (default lws)")
    return parser


def _growth_mib(epochs: Sequence[Point]) -> float:
    """Growth after epoch 2, of what is resident or of the peak, which loading may hide."""
    second, last = epochs[1], epochs[-1]
    return max(last.resident_mib - second.resident_mib, last.peak_mib - second.peak_mib)


def _verdict(growth_mib: float | None, epochs: int) -> str:
    if growth_mib is None:
        return "one epoch says nothing about growth"
    flat = "flat" if growth_mib <= FLAT_MIB else "NOT flat"
    return f"growth from epoch 2 to {epochs}: {growth_mib:+.1f} MiB, {flat} (flat: at most {FLAT_MIB:g} MiB)"


def _row(point: Point) -> list[str]:
    memory = [point.when, f"{point.resident_mib:.1f}", f"{point.peak_mib:.1f}"]
    return [*memory, f"{point.tasks:,}", f"{point.images_per_s:,.0f}"] if point.tasks else [*memory, "", ""]


def main() -> int:
    """Measure, print, record."""
    chosen = _parser().parse_args()
    machine, dataset = measuring.Machine(), load(chosen.images)
    with threadpool_limits(1):  # BLAS runs inside a task
        points = train(dataset, chosen.epochs, chosen.scheduler, chosen.batch, chosen.workers)
    epochs = points[2:]
    growth_mib = _growth_mib(epochs) if len(epochs) > 1 else None
    measuring.show(
        f"basic_cnn on {len(dataset.train.labels):,} images of {dataset.name}, batch {chosen.batch}, "
        f"{chosen.workers} workers",
        ["when", "resident MiB", "peak MiB", "tasks", "images/s"],
        [_row(point) for point in points],
        [_verdict(growth_mib, len(epochs)), machine.line(spread=False)],
    )
    measuring.record(
        chosen.json,
        "memory",
        machine,
        dataset=dataset.name,
        images=len(dataset.train.labels),
        image_bytes=dataset.train.images.nbytes + dataset.test.images.nbytes,
        batch=chosen.batch,
        workers=chosen.workers,
        scheduler=chosen.scheduler,
        points=points,
        growth_mib=growth_mib,
        flat=None if growth_mib is None else growth_mib <= FLAT_MIB,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
