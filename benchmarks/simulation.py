"""How long a simulation takes on this machine, and how much memory: an epoch on a large node, and a million tasks."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import measuring
from dahl import models

PLATFORM = "dgx1_v100"
IMAGES = 60_000
TASKS = 1_000_000
MANY_TASKS = {"platform": "laptop", "scheduler": "eager", "model": "basic_cnn", "batch": 64, "tile": 4}
"""Where so many tasks are simulated: few workers, so that it takes minutes."""
HERE = Path(__file__).parent


class ChildError(Exception):
    """A process that simulates has failed; the message has its last lines."""


def simulate(job: Mapping[str, Any]) -> dict[str, float]:
    """Simulate in a process of its own, as SimGrid wants it."""
    command = [sys.executable, "-m", "benchmarks.simulate_epochs", json.dumps(job)]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildError("\n".join(["the simulation failed:", *done.stderr.strip().splitlines()[-5:]]))
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options("Seconds and memory of simulations on this machine.")
    parser.add_argument("--platform", default=PLATFORM, help=f"default {PLATFORM}")
    parser.add_argument("--schedulers", nargs="+", default=["dmda", "eager_energy"])
    parser.add_argument("--model", choices=models.__all__, default="basic_cnn")
    parser.add_argument("--images", type=measuring.positive, default=IMAGES, help=f"default {IMAGES}")
    parser.add_argument("--batch", type=measuring.positive, default=512)
    parser.add_argument("--tile", type=measuring.positive, default=64)
    parser.add_argument("--tasks", type=int, default=TASKS, help=f"0: none (default {TASKS})")
    return parser


def _row(case: str, spreads: Mapping[str, measuring.Spread]) -> list[str]:
    per_task_us = 1e6 * spreads["processor_s"].median / spreads["tasks"].median
    columns = [spreads["wall_s"].text(1), spreads["processor_s"].text(1), spreads["peak_mib"].text(0)]
    return [case, f"{spreads['tasks'].median:,.0f}", *columns, f"{per_task_us:.0f}"]


def main() -> int:
    """Measure, print, record."""
    chosen = _parser().parse_args()
    machine = measuring.Machine()
    names = ("platform", "model", "images", "batch", "tile")
    job = {**{name: getattr(chosen, name) for name in names}, "tasks": 0}
    epochs: dict[str, measuring.Case] = {
        scheduler: partial(simulate, {**job, "scheduler": scheduler}) for scheduler in chosen.schedulers
    }
    try:
        found = measuring.alternate(epochs, chosen.rounds)
        many = {**MANY_TASKS, "images": chosen.images, "tasks": chosen.tasks}
        most = measuring.alternate({"many": lambda: simulate(many)}, 1)["many"] if chosen.tasks else None
    except ChildError as error:
        print(error, file=sys.stderr)
        return 1
    rows = [_row(f"an epoch on {chosen.platform}, {name}", spreads) for name, spreads in found.items()]
    if most is not None:
        rows.append(
            _row(f"{most['epochs'].median:.0f} epochs on {many['platform']}, {many['scheduler']}", most)
        )
    measuring.show(
        f"simulated {chosen.model}, {chosen.images} images, {chosen.rounds} rounds",
        ["", "tasks", "s on the wall", "s of a processor", "peak MiB", "us a task"],
        rows,
        [
            "seconds of the epochs alone: starting, data and recording the graphs take about 1 s more",
            machine.line(),
        ],
    )
    measuring.record(chosen.json, "simulation", machine, job=job, epochs=found, many=most)
    return 0


if __name__ == "__main__":
    sys.exit(main())
