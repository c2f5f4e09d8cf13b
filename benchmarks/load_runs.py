"""Loading many runs: seconds, CPU seconds and peak memory of `load_runs` over ten thousand synthetic folders.

Each case runs in a process of its own over files that were just written, so they come from memory, not disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmarks import measuring
from benchmarks.memory import memory_mib
from experiments import load_runs, records
from experiments.runs import Runs
from experiments.schemas import TASKS, WINDOWS, epoch_schema
from experiments.summary import summarise
from experiments.tables import TableStream, finish_tables
from experiments.validation import CONFIGS

RUNS = 10_000
SECONDS = 20.0
MEMORY_MB = 2_000
"""The target: at most so many seconds, and less than so much memory."""

EPOCHS = 5
TASKS_PER_RUN = 500
_CHANNELS = ("model:base", "model:cpu")


def write_runs(folder: Path, count: int) -> None:
    """Write so many runs of five epochs: one by the own writers, the others as its copies with other seeds."""
    first = folder / "first"
    first.mkdir(parents=True)
    rows = _write_tables(first)
    config = _config()
    records.write_config(first, config)
    text = (first / records.CONFIG_NAME).read_text()
    summary = summarise(config, rows, status="finished", simulated=False, weights_sha256="ab" * 32)
    for number in range(count):
        run_dir = folder / f"20260101T{number:06d}Z-eager_energy-basic_cnn-{number:06x}"
        shutil.copytree(first, run_dir)
        (run_dir / records.CONFIG_NAME).write_text(text.replace("\nseed: 0\n", f"\nseed: {number}\n"))
        (run_dir / records.SUMMARY_NAME).write_text(json.dumps(summary, indent=2))
    shutil.rmtree(first)


def _config() -> dict[str, Any]:
    """The configuration of a run as Hydra composes it."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("run"), resolve=True)
    named = ("scheduler", "workload", "model", "dataset", "energy", "platform")
    choices = dict(zip(named, ("eager_energy", "cnn", "basic_cnn", "synthetic", "auto", "host"), strict=True))
    return {**config, "choices": {**choices, "experiment": None}, "sweep": None}


def _write_tables(run_dir: Path) -> list[dict[str, Any]]:
    rows = []
    schema = epoch_schema(_CHANNELS)
    epochs, windows = TableStream(run_dir, "epochs", schema), TableStream(run_dir, "windows", WINDOWS)
    for epoch in range(1, EPOCHS + 1):
        row = dict.fromkeys(schema.names) | {"epoch": epoch, "block": epoch, "images": 60_000}
        row |= {"seconds": 0.09, "loss": 0.5 / epoch, "accuracy": 0.85, "gross_j": 2.4, "net_j": 1.0}
        row |= {"quality": "estimated", "resolvable": True}
        rows.append(row)
        epochs.append_row(row)
        for channel in _CHANNELS:
            part = {
                "window": "epoch",
                "epoch": epoch,
                "last_epoch": epoch,
                "channel": channel,
                "seconds": 0.09,
            }
            windows.append_row(dict.fromkeys(WINDOWS.names) | part | {"quality": "estimated", "gross_j": 1.2})
    tasks = TableStream(run_dir, "tasks", TASKS)
    tasks.append({field.name: _column(field.type) for field in TASKS})
    for table in (epochs, windows, tasks):
        table.close()
    finish_tables(run_dir)
    return rows


def _column(kind: Any) -> Any:
    """So many different values."""
    values = np.arange(TASKS_PER_RUN)
    return [f"codelet_{value % 12}" for value in values] if str(kind) == "string" else values.astype(float)


CASES: Mapping[str, Callable[[Runs], list[pd.DataFrame]]] = {
    "summaries": lambda runs: [runs.summary],
    "summaries, epochs": lambda runs: [runs.summary, runs.epochs],
    "summaries, epochs, windows, configurations": lambda runs: [
        runs.summary,
        runs.epochs,
        runs.windows,
        runs.configs,
    ],
}
ROWS_PER_RUN = (1, EPOCHS, EPOCHS * len(_CHANNELS), 1)
"""Of these frames."""


def measure(case: str, folder: Path) -> dict[str, Any]:
    """Load in this process; seconds, peak MB, and the rows of each frame."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    frames = CASES[case](load_runs(folder))
    seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    rows = [len(frame) for frame in frames]
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_mb": memory_mib()[1] * 2**20 / 1e6, "rows": rows}


def _in_a_process(case: str, folder: Path, runs: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load_runs", "--measure", case, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{case} failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    rows = found.pop("rows")
    if rows != [runs * each for each in ROWS_PER_RUN[: len(rows)]]:
        raise RuntimeError(f"{case} found {rows} rows in {runs} runs")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options("Loading many runs.")
    parser.add_argument("--runs", type=measuring.positive, default=RUNS, help=f"how many (default {RUNS})")
    parser.add_argument("--folder", type=Path, default=None, help="for them (default a temporary one)")
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, record."""
    chosen = _parser().parse_args(arguments)
    if chosen.measure:
        case, folder = chosen.measure
        print(json.dumps(measure(case, Path(folder))))
        return 0
    machine = measuring.Machine()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
        folder = Path(temporary) / "many"
        write_runs(folder, chosen.runs)
        cases = {name: lambda name=name: _in_a_process(name, folder, chosen.runs) for name in CASES}
        figures = measuring.alternate(cases, chosen.rounds)
    measuring.show(
        f"{chosen.runs:,} runs of {EPOCHS} epochs",
        ["loaded", "seconds", "CPU seconds", "peak MB"],
        [
            [name, *(found[key].text(1) for key in ("seconds", "cpu_s", "peak_mb"))]
            for name, found in figures.items()
        ],
    )
    held = {
        name: found["seconds"].highest <= SECONDS and found["peak_mb"].highest < MEMORY_MB
        for name, found in figures.items()
    }
    verdict = "; ".join(f"{name}: {'holds' if holds else 'MISSED'}" for name, holds in held.items())
    print(f"at most {SECONDS:g} s and under {MEMORY_MB / 1000:g} GB, here of {chosen.runs:,} runs: {verdict}")
    print(machine.line())
    measuring.record(
        chosen.json, "load_runs", machine, runs=chosen.runs, epochs=EPOCHS, cases=figures, target_holds=held
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
