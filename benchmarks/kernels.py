"""Each operation of the models against what this core can do: its arithmetic (SGEMM) and its memory.

Times come from StarPU's trace of training on one worker. The floor of an operation is the longer of its
flops at SGEMM's rate and its bytes at the rate of a copy (the roofline model: Williams, Waterman, Patterson,
CACM 2009). Tiles fit the caches, so that an operation can be faster than memory allows: more than 100 %.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any, final

import numpy as np
from scipy.linalg.blas import sgemm
from threadpoolctl import threadpool_limits

from benchmarks import measuring
from dahl import models, starpu
from dahl.context import Context
from dahl.costs import UNKNOWN, CostModel, cost_key
from dahl.datasets import Synthetic
from dahl.ops.operation import Cost, Operation
from dahl.training import Hyperparameters, Trainer

GEMM_SIZE = 512
COPY_MIB = 128
BATCH = 64
TILE = 16


@final
class Work(CostModel):
    """Notes the flops and bytes of each kind of task; it knows no lengths."""

    def __init__(self) -> None:
        self.by_key: dict[str, Cost] = {}

    def length_s(
        self, worker: starpu.Worker, operation: Operation, shapes: Mapping[str, Any], scalars: Any
    ) -> float:
        self.by_key[cost_key(operation, shapes, scalars)] = operation.cost(shapes, scalars)
        return UNKNOWN

    def watts(
        self, worker: starpu.Worker, operation: Operation, shapes: Mapping[str, Any], scalars: Any
    ) -> float:
        return UNKNOWN


def ceilings(copy_mib: int) -> dict[str, float]:
    """This core's GFLOP/s in SGEMM and GB/s in a copy (bytes read plus bytes written), one thread each."""
    a = np.asfortranarray(np.random.default_rng(0).random((GEMM_SIZE, GEMM_SIZE), np.float32))
    source = np.ones(copy_mib << 18, np.float32)
    target = np.zeros_like(source)
    gemm_s, copy_s = [], []
    for _ in range(5):
        start = time.perf_counter()
        sgemm(1.0, a, a)
        middle = time.perf_counter()
        np.copyto(target, source)
        gemm_s.append(middle - start)
        copy_s.append(time.perf_counter() - middle)
    return {
        "gflop_per_s": 2e-9 * GEMM_SIZE**3 / statistics.median(gemm_s),
        "gb_per_s": 2e-9 * source.nbytes / statistics.median(copy_s),
    }


@final
class Run:
    """Trains one model on one worker; each call is one round."""

    def __init__(self, model: str, batches: int) -> None:
        self._model, self._batches = model, batches
        self._dataset = Synthetic(train_size=BATCH * batches, test_size=BATCH).load()
        self.work: dict[str, Cost] = {}
        self.tasks: dict[str, float] = {}
        """Tasks of a mini-batch, by kind."""

    def __call__(self) -> Mapping[str, float]:
        """Microseconds of the median task by kind, of a whole ``batch``, and of the part ``in kernels``."""
        return starpu.Runtime(cpu_workers=1, scheduler="eager").run(self._inside)

    def _inside(self, runtime: starpu.Runtime) -> dict[str, float]:
        work = Work()
        context = Context(runtime, costs=work)
        hyperparameters = Hyperparameters(batch_size=BATCH, tile=TILE)
        trainer = Trainer(context, getattr(models, self._model)(), self._dataset, hyperparameters)
        trainer.run_epoch(0, max_batches=2)
        runtime.take_trace()
        result = trainer.run_epoch(1)
        trace = runtime.take_trace()
        us = (trace["end_s"] - trace["start_s"]) * 1e6
        found = {
            "batch": result.seconds / self._batches * 1e6,
            "in kernels": float(us.sum()) / self._batches,
        }
        for number, key in enumerate(context.footprints):
            mine = us[trace["footprint"] == number]
            if mine.size:
                found[key] = float(np.median(mine))
                self.tasks[key] = mine.size / self._batches
                self.work[key] = work.by_key[key]
        return found


def _rows(
    run: Run, found: Mapping[str, measuring.Spread], gflop_per_s: float, gb_per_s: float
) -> list[dict[str, Any]]:
    """One row for each kind of task, those that take most of a mini-batch first."""
    rows = []
    for key, spread in found.items():
        if key not in run.work:
            continue
        work, seconds = run.work[key], spread.median * 1e-6
        floor_s = max(work.flops / (gflop_per_s * 1e9), work.bytes / (gb_per_s * 1e9))
        rows.append(
            {
                "kind": key,
                "tasks": run.tasks[key],
                "us": spread,
                "us_per_batch": spread.median * run.tasks[key],
                "gflop_per_s": work.flops / seconds * 1e-9,
                "gb_per_s": work.bytes / seconds * 1e-9,
                "of_roofline": floor_s / seconds,
                "bound": "flops" if work.flops / gflop_per_s > work.bytes / gb_per_s else "bytes",
            }
        )
    return sorted(rows, key=lambda row: -row["us_per_batch"])


def _show(
    model: str, rows: list[dict[str, Any]], found: Mapping[str, measuring.Spread], notes: list[str]
) -> None:
    batch = found["batch"]
    measuring.show(
        f"{model}: operations of a mini-batch of {BATCH} in tiles of {TILE}, 1 worker",
        ["operation and shapes", "tasks", "us", "% of batch", "GFLOP/s", "GB/s", "% of roofline", "bound"],
        [
            [
                row["kind"].replace("/", " "),
                f"{row['tasks']:g}",
                row["us"].text(1),
                f"{100 * row['us_per_batch'] / batch.median:.1f}",
                f"{row['gflop_per_s']:.1f}",
                f"{row['gb_per_s']:.1f}",
                f"{100 * row['of_roofline']:.0f}",
                row["bound"],
            ]
            for row in rows
        ],
        [
            f"a mini-batch: {batch.text(0)} us, {BATCH / batch.median * 1e6:,.0f} images/s; "
            f"in kernels {found['in kernels'].text(0)} us",
            *notes,
        ],
    )


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options("Time, GFLOP/s and GB/s of each operation of the models, on one core.")
    parser.add_argument(
        "--models", nargs="+", choices=models.__all__, default=models.__all__, help="default both"
    )
    parser.add_argument("--batches", type=measuring.positive, default=40, help="of a round (default 40)")
    parser.add_argument("--copy-mib", type=measuring.positive, default=COPY_MIB, help=f"default {COPY_MIB}")
    return parser


def main() -> int:
    """Measure, print, record."""
    chosen = _parser().parse_args()
    machine = measuring.Machine()
    runs = {model: Run(model, chosen.batches) for model in chosen.models}
    cases: dict[str, measuring.Case] = {"core": lambda: ceilings(chosen.copy_mib), **runs}
    with threadpool_limits(1):  # BLAS runs inside a task
        for run in runs.values():
            run()  # compiles the kernels
        found = measuring.alternate(cases, chosen.rounds)
    core = found.pop("core")
    limits = {name: spread.median for name, spread in core.items()}
    notes = [
        f"SGEMM {GEMM_SIZE}^3: {core['gflop_per_s'].text(1)} GFLOP/s; copy of {chosen.copy_mib} MiB: "
        f"{core['gb_per_s'].text(1)} GB/s; one thread, same run",
        machine.line(),
    ]
    rows = {model: _rows(runs[model], spreads, **limits) for model, spreads in found.items()}
    for model, spreads in found.items():
        _show(model, rows[model], spreads, notes)
    measuring.record(
        chosen.json,
        "kernels",
        machine,
        core=core,
        batch=BATCH,
        tile=TILE,
        us_per_batch={
            model: {key: spread for key, spread in spreads.items() if key not in runs[model].work}
            for model, spreads in found.items()
        },
        kinds=rows,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
