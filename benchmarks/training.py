"""Images per second of training, this project beside PyTorch on the CPU, in alternated processes.

Both take every mini-batch in a random order from memory and keep its loss. This project normalises the images
in the measured time; PyTorch is given normalised ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import measuring
from dahl import models

BATCHES = (64, 256)
IMAGES = {"basic_cnn": 12_800, "lenet": 2_560}
"""Images of one measurement: a fraction of a second to a second."""
HERE = Path(__file__).parent
ABSENT = (
    "no PyTorch here, so nothing is compared: pip install torch==2.13.0, "
    "or name an interpreter that has it with --pytorch-python"
)


class ChildError(Exception):
    """A process that measures has failed; the message has its last lines."""


def _run_json(command: list[str], job: Mapping[str, Any]) -> dict[str, Any]:
    """Give a process its job as JSON and read its answer, the last line that it prints."""
    threads = {name: str(job["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [*command, json.dumps(job)],
        cwd=HERE.parent,
        env=os.environ | threads | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ChildError("\n".join([f"{command[-1]} failed:", *done.stderr.strip().splitlines()[-5:]]))
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _ours(job: Mapping[str, Any]) -> measuring.Case:
    return lambda: _run_json([sys.executable, "-m", "benchmarks.train_dahl"], job)


def _pytorch(python: str, job: Mapping[str, Any]) -> measuring.Case:
    return lambda: _run_json([python, str(HERE / "train_pytorch.py")], job)


def pytorch_version(python: str) -> str | None:
    """PyTorch's version under an interpreter; None where it has none."""
    code = "import importlib.metadata as m; print(m.version('torch'))"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _cases(chosen: argparse.Namespace, pytorch: str | None) -> dict[str, measuring.Case]:
    images = {model: chosen.images or IMAGES[model] for model in chosen.models}
    cases: dict[str, measuring.Case] = {}
    for threads in sorted({1, measuring.cores()}):
        job = {"images": images, "batches": chosen.batches, "threads": threads, "scheduler": chosen.scheduler}
        cases[f"dahl, {threads} workers"] = _ours(job)
        if pytorch:
            cases[f"PyTorch, {threads} threads"] = _pytorch(chosen.pytorch_python, job)
    return cases


def _columns(found: Mapping[str, Mapping[str, measuring.Spread]]) -> dict[str, dict[str, measuring.Spread]]:
    """What was measured, by ``model, batch``, then by who and how."""
    columns: dict[str, dict[str, measuring.Spread]] = {}
    for case, spreads in found.items():
        for key, spread in spreads.items():
            what, _, how = key.partition("; ")
            columns.setdefault(what, {})[f"{case}, {how}" if how else case] = spread
    return columns


def _ratios(columns: Mapping[str, Mapping[str, measuring.Spread]]) -> dict[str, dict[str, float]]:
    """This project's best over PyTorch's best, by ``model, batch``: of medians, and of fastest rounds.

    Where others use the machine, PyTorch's threads wait for each other and its medians fall far below its
    fastest round; the two ratios then differ.
    """
    ratios: dict[str, dict[str, float]] = {}
    for what, cells in columns.items():
        ours = [spread for who, spread in cells.items() if who.startswith("dahl")]
        theirs = [spread for who, spread in cells.items() if not who.startswith("dahl")]
        if ours and theirs:
            ratios[what] = {
                "medians": max(s.median for s in ours) / max(s.median for s in theirs),
                "fastest rounds": max(s.highest for s in ours) / max(s.highest for s in theirs),
            }
    return ratios


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options("Images per second of training, beside PyTorch's on the CPU.")
    parser.add_argument(
        "--models", nargs="+", choices=models.__all__, default=models.__all__, help="default both"
    )
    parser.add_argument("--batches", nargs="+", type=measuring.positive, default=list(BATCHES))
    parser.add_argument("--images", type=measuring.positive, help="default 12800 and 2560")
    parser.add_argument("--scheduler", default="lws", help="one of StarPU's (default lws)")
    parser.add_argument(
        "--pytorch-python", default=sys.executable, metavar="PYTHON", help="one that has torch"
    )
    return parser


def main() -> int:
    """Measure, print, record."""
    chosen = _parser().parse_args()
    machine, pytorch = measuring.Machine(), pytorch_version(chosen.pytorch_python)
    cases = _cases(chosen, pytorch)
    try:
        next(iter(cases.values()))()  # compiles the kernels
        found = measuring.alternate(cases, chosen.rounds)
    except ChildError as error:
        print(error, file=sys.stderr)
        return 1
    columns = _columns(found)
    ratios = _ratios(columns)
    whos = dict.fromkeys(who for cells in columns.values() for who in cells)
    measuring.show(
        f"images/s of training, {chosen.rounds} rounds",
        ["", *columns],
        [
            [who, *(cells[who].text(0) if who in cells else "" for cells in columns.values())]
            for who in sorted(whos)
        ],
        [
            *(
                f"{what}: {r['medians']:.2f} x the best PyTorch (fastest rounds: {r['fastest rounds']:.2f} x)"
                for what, r in ratios.items()
            ),
            f"PyTorch {pytorch}" if pytorch else ABSENT,
            machine.line(),
        ],
    )
    measuring.record(
        chosen.json, "training", machine, pytorch=pytorch, images_per_s=columns, times_the_best_pytorch=ratios
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
