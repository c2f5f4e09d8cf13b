"""How near a simulation of this machine comes to it: calibrates, then runs the same epochs in earnest and simulated.

Each step is kept in `--folder`; the same command goes on where it was stopped, and measures nothing twice.
Each tile size is calibrated right before its real epochs, since a machine is not as fast at every hour; what was
measured while the cores were slow is measured again (`benchmarks.core_speed`). Simulations come last.
Run it on a machine that nobody else uses.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

from benchmarks import measuring
from benchmarks.core_speed import Steady, gflop_per_s
from benchmarks.fidelity_table import HEADINGS, Compared, cells, markdown, verdict, verdict_lines
from experiments.records import read_json, write_json
from experiments.runs import load_runs

CHECKOUT = Path(__file__).parents[1]
MODELS = ("basic_cnn", "lenet")
SCHEDULERS = ("eager", "dmda", "eager_energy", "random")
"""Three that are close to each other on equal cores, and one that is not."""
TILES = (16, 64, 256)
BATCH = 256
IMAGES = 10_240
EPOCHS = {"basic_cnn": 15, "lenet": 3}
"""Real ones, after a first: seconds together."""
KIND_LIMIT_S = 0.05
TRIES = 3


class StepError(Exception):
    """A command of the project failed; the message has its last lines."""


@final
@dataclass(frozen=True)
class Case:
    """One workload under one scheduler."""

    model: str
    workers: int
    tile: int
    scheduler: str

    def name(self, images: int) -> str:
        """The folder of its runs."""
        return f"{self.model}_{self.workers}_{self.tile}_{self.scheduler}_{images}"

    def overrides(self, images: int) -> list[str]:
        """What a run of it is asked."""
        own = [f"model={self.model}", f"workers={self.workers}", f"tile={self.tile}"]
        return [*own, *_common(images), f"scheduler={self.scheduler}"]


def _common(images: int) -> list[str]:
    data = ["dataset=synthetic", f"dataset.train_size={images}", f"dataset.test_size={BATCH}"]
    return [*data, f"batch_size={BATCH}", "fuse=false", "energy=model"]


@final
class Study:
    """The steps, each with what it leaves in the folder."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self._chosen = chosen
        self._folder: Path = chosen.folder.absolute()
        self._measured = self._folder / "measured.json"
        self._kept_path = self._folder / "kept.json"
        self._kept: dict[str, int] = read_json(self._kept_path) if self._kept_path.exists() else {}
        self.steady = Steady(partial(gflop_per_s, measuring.cores()), TRIES)

    def cases(self) -> Iterator[Case]:
        """Every workload under every scheduler, the schedulers next to each other."""
        chosen = self._chosen
        for found in itertools.product(chosen.models, chosen.workers, chosen.tiles, chosen.schedulers):
            yield Case(*found)

    def calibrate(self, model: str, workers: int, tile: int) -> None:
        """Measure every kind of task, and training under each scheduler; what is known is not measured again."""
        what = f"calibrating {model}, {workers} workers, tile {tile}"
        if what in self._kept:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        files = [self._folder / f"measured-{attempt}.json" for attempt in range(TRIES)]

        def attempt(file: Path) -> None:
            file.unlink(missing_ok=True)
            if self._measured.exists():
                shutil.copyfile(self._measured, file)
            _run(
                what,
                "experiments.calibrate",
                *(f"model={model}", f"workers={workers}", f"tile={tile}", *_common(self._chosen.images)),
                *(f"schedulers=[{','.join(self._chosen.schedulers)}]", f"limit_s={KIND_LIMIT_S}"),
                f"file={file}",
            )

        kept = self.steady.best_of([partial(attempt, file) for file in files])
        os.replace(files[kept], self._measured)
        self._keep(what, kept)

    def _keep(self, what: str, attempt: int) -> None:
        self._kept[what] = attempt
        write_json(self._kept_path, self._kept)

    def measure(self) -> dict[Case, measuring.Spread]:
        """Calibrate and run each workload, one after the other."""
        found: dict[Case, measuring.Spread] = {}
        for workload, cases in itertools.groupby(
            self.cases(), lambda case: (case.model, case.workers, case.tile)
        ):
            self.calibrate(*workload)
            found |= {case: self.real_s(case) for case in cases}
        return found

    def simulated_s(self, case: Case) -> float:
        """An epoch's seconds on this machine as a platform; all of them are the same."""
        platform = self._platform(case.workers)
        digest = hashlib.sha256(platform.read_bytes()).hexdigest()[:8]
        where = ["--config-dir", str(self._folder / "configs"), f"platform={platform.stem}"]
        output = self._folder / f"simulated-{digest}"
        self._run_epochs(output, case, 1, where)
        (seconds,) = self._epochs_s(output, case, 1)
        return seconds

    def real_s(self, case: Case) -> measuring.Spread:
        """The seconds of the epochs after the first."""
        epochs = 1 + (self._chosen.epochs or EPOCHS[case.model])
        what = f"{case.name(self._chosen.images)}, {epochs} epochs"
        outputs = [self._folder / f"real-{attempt}" for attempt in range(TRIES)]
        if what not in self._kept:
            runs = [partial(self._run_epochs, output, case, epochs, []) for output in outputs]
            self._keep(what, self.steady.best_of(runs))
        return measuring.Spread.of(self._epochs_s(outputs[self._kept[what]], case, epochs)[1:])

    def _platform(self, workers: int) -> Path:
        path = self._folder / "configs" / "platform" / f"host_{workers}.yaml"
        if not path.exists() or path.stat().st_mtime_ns < self._measured.stat().st_mtime_ns:
            path.parent.mkdir(parents=True, exist_ok=True)
            options = ["--file", str(self._measured), "--workers", str(workers), "--out", str(path)]
            _run(f"this machine with {workers} workers as a platform", "experiments.host_platform", *options)
        return path

    def _run_epochs(self, output: Path, case: Case, epochs: int, where: list[str]) -> None:
        name = case.name(self._chosen.images)
        if self._known(output / name, epochs) is None:
            records = [f"output={output}", f"name={name}", f"epochs={epochs}"]
            off = ["evaluate=false", "trace=false", "bound=false"]
            overrides = case.overrides(self._chosen.images)
            _run(f"{output.name} {name}", "experiments.run", *where, *overrides, *records, *off)

    def _epochs_s(self, output: Path, case: Case, epochs: int) -> list[float]:
        folder = output / case.name(self._chosen.images)
        known = self._known(folder, epochs)
        if known is None:
            raise StepError(f"{folder} has no finished run of {epochs} epochs")
        return known

    @staticmethod
    def _known(folder: Path, epochs: int) -> list[float] | None:
        runs = load_runs(folder) if folder.exists() else []
        finished = [
            run for run in runs if run.summary["status"] == "finished" and run.summary["epochs"] == epochs
        ]
        return [float(seconds) for seconds in finished[-1].epochs["seconds"]] if finished else None


def _run(what: str, module: str, *arguments: str) -> None:
    print(what, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise StepError("\n".join([f"{what}: {module} ended with {done.returncode}", *last]))


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options("Real against simulated epochs of this machine.", rounds=False)
    parser.add_argument("--folder", type=Path, default=Path("runs/fidelity"), help="default runs/fidelity")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--schedulers", nargs="+", default=list(SCHEDULERS))
    parser.add_argument("--workers", type=measuring.positive, nargs="+", default=[1, 2])
    parser.add_argument("--tiles", type=measuring.positive, nargs="+", default=list(TILES))
    parser.add_argument("--images", type=measuring.positive, default=IMAGES, help=f"default {IMAGES}")
    parser.add_argument(
        "--epochs", type=measuring.positive, help="real ones, after a first (default: 15, of lenet 3)"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to this file too")
    return parser


def main() -> int:
    """Calibrate, simulate, run, compare."""
    chosen = _parser().parse_args()
    machine = measuring.Machine()
    study = Study(chosen)
    try:
        rows = [
            Compared(case.model, case.workers, case.tile, case.scheduler, real_s, study.simulated_s(case))
            for case, real_s in study.measure().items()
        ]
    except StepError as error:
        print(error, file=sys.stderr)
        return 1
    found: dict[str, Any] = verdict(rows)
    lines = [*verdict_lines(found), f"steps that were slow in each of {TRIES} tries: {study.steady.slow}"]
    measuring.show(
        f"An epoch of {chosen.images} images in mini-batches of {BATCH}, a task for each layer",
        HEADINGS,
        [cells(row) for row in rows],
        [*lines, machine.line()],
    )
    if chosen.markdown is not None:
        chosen.markdown.write_text(markdown(rows, [*lines, machine.line()]))
    described = [{**vars_of(row), "error": row.error} for row in rows]
    measuring.record(chosen.json, "fidelity", machine, rows=described, verdict=found, images=chosen.images)
    return 0


def vars_of(row: Compared) -> dict[str, Any]:
    """A row's fields."""
    return {name: getattr(row, name) for name in Compared.__dataclass_fields__}


if __name__ == "__main__":
    sys.exit(main())
