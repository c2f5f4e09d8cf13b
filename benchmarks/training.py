"""Images per second of training, this project beside PyTorch on the CPU, in alternated processes; ``--gpu`` on a GPU.

First every tile is timed, with the share of the workers' time that no kernel ran; the rounds then take the fastest.
Both projects take every mini-batch in a random order from memory and keep its loss. This one normalises the images
in the measured time; PyTorch is given normalised ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import measuring, training_gpu
from dahl import models

BATCHES = (64, 256, 1024)
IMAGES = {"basic_cnn": 51_200, "lenet": 2_560}
PYTORCH_IMAGES = {"basic_cnn": 12_800, "lenet": 2_560}
"""Images of one measurement: a tenth of a second to a second."""
HERE = Path(__file__).parent
ABSENT = (
    "no PyTorch here, so nothing is compared: pip install torch==2.13.0, "
    "or name an interpreter that has it with --pytorch-python"
)
Tiles = dict[str, dict[str, dict[str, float]]]
"""What was measured by ``model, batch``, then by tile."""


class ChildError(Exception):
    """A process that measures has failed; the message has its last lines."""


def _run_json(command: list[str], job: Mapping[str, Any]) -> dict[str, Any]:
    """Give a process its job as JSON and read its answer, the last line that it prints."""
    threads = {name: str(max(1, job["threads"])) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
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


def _ours(job: Mapping[str, Any]) -> dict[str, Any]:
    return _run_json([sys.executable, "-m", "benchmarks.train_dahl"], job)


def _pytorch(python: str, job: Mapping[str, Any]) -> dict[str, Any]:
    return _run_json([python, str(HERE / "train_pytorch.py")], job)


def _pytorch_gpu(python: str, job: Mapping[str, Any]) -> dict[str, Any]:
    return _run_json([python, str(HERE / "train_pytorch_gpu.py")], job)


def pytorch_version(python: str) -> str | None:
    """PyTorch's version under an interpreter; None where it has none."""
    code = "import importlib.metadata as m; print(m.version('torch'))"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _job(chosen: argparse.Namespace, threads: int, **more: Any) -> dict[str, Any]:
    images = {model: chosen.images or IMAGES[model] for model in chosen.models}
    job = {"images": images, "batches": chosen.batches, "threads": threads}
    return {**job, "scheduler": chosen.scheduler, "fuse": not chosen.unfused, **more}


def measure_tiles(chosen: argparse.Namespace) -> dict[int, Tiles]:
    """Every tile's figures by number of workers."""
    # Without fused tasks the bits depend on the tile, and 16 is what a run takes.
    tile = chosen.tile or (16 if chosen.unfused else None)
    threads = sorted({1, measuring.cores()})
    return {count: _ours(_job(chosen, count, what="tiles", tile=tile)) for count in threads}


def _fastest(by_tile: Mapping[str, Mapping[str, float]]) -> str:
    return max(by_tile, key=lambda tile: by_tile[tile]["images_per_s"])


def _cases(
    chosen: argparse.Namespace, pytorch: str | None, tiles: Mapping[int, Tiles]
) -> dict[str, measuring.Case]:
    cases: dict[str, measuring.Case] = {}
    for threads, measured in tiles.items():
        taken = {what: int(_fastest(by_tile)) for what, by_tile in measured.items()}
        own = _job(chosen, threads, what="rates", tiles=taken)
        cases[f"dahl, {threads} workers"] = partial(_ours, own)
        for compiled in (False, True):
            if pytorch and not (compiled and chosen.no_compile):
                images = {model: chosen.images or PYTORCH_IMAGES[model] for model in chosen.models}
                job = {**own, "images": images, "compile": compiled}
                name = f"PyTorch, {threads} threads{', compile' if compiled else ''}"
                cases[name] = partial(_pytorch, chosen.pytorch_python, job)
    return cases


def _working(cases: dict[str, measuring.Case]) -> tuple[dict[str, measuring.Case], list[str]]:
    """Run each case once, which compiles; leave out torch.compile where it does not build, and say so."""
    notes = []
    for name, case in list(cases.items()):
        try:
            case()
        except ChildError as error:
            if not name.endswith("compile"):
                raise
            del cases[name]
            notes.append(f"{name} is left out: {str(error).splitlines()[-1]}")
    return cases, notes


def _columns(found: Mapping[str, Mapping[str, measuring.Spread]]) -> dict[str, dict[str, measuring.Spread]]:
    """What was measured, by ``model, batch``, then by who and how."""
    columns: dict[str, dict[str, measuring.Spread]] = {}
    for case, spreads in found.items():
        for key, spread in spreads.items():
            what, _, how = key.partition("; ")
            name = case if not how or case.endswith("compile") else f"{case}, {how}"
            columns.setdefault(what, {})[name] = spread
    return columns


def _ratios(columns: Mapping[str, Mapping[str, measuring.Spread]]) -> dict[str, dict[str, float]]:
    """This project's best over PyTorch's best, by ``model, batch``: of medians, and of fastest rounds.

    Where others use the machine, PyTorch's threads wait for each other and its medians fall far below its
    fastest round; the two ratios then differ. ``workers`` is this project's all workers over one, of medians.
    """
    ratios: dict[str, dict[str, float]] = {}
    for what, cells in columns.items():
        ours = [spread for who, spread in cells.items() if who.startswith("dahl")]
        theirs = [spread for who, spread in cells.items() if not who.startswith("dahl")]
        if ours and theirs:
            ratios[what] = {
                "medians": max(s.median for s in ours) / max(s.median for s in theirs),
                "fastest rounds": max(s.highest for s in ours) / max(s.highest for s in theirs),
                "workers": ours[-1].median / ours[0].median,
            }
    return ratios


def show_tiles(tiles: Mapping[int, Tiles]) -> None:
    """Print every tile's figures."""
    measuring.show(
        "tiles: medians of traced epochs; joules are estimated, of assumed watts",
        ["", "workers", "tile", "tasks", "images/s", "outside kernels", "J per 1000 images"],
        [
            [
                what,
                str(workers),
                f"{tile}{' *' if tile == _fastest(by_tile) else ''}",
                f"{figures['tasks_per_batch']:g}",
                f"{figures['images_per_s']:,.0f}",
                f"{figures['outside_kernels']:.1%}",
                f"{figures['estimated_j_per_1000_images']:.3g}",
            ]
            for workers, measured in tiles.items()
            for what, by_tile in measured.items()
            for tile, figures in by_tile.items()
        ],
        ["* taken in the rounds"],
    )


def plot_tiles(tiles: Mapping[int, Tiles], path: Path) -> None:
    """Draw images per second and joules against the tile's size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    whats = list(next(iter(tiles.values())))
    figure, axes = pyplot.subplots(2, len(whats), figsize=(3.2 * len(whats), 6), squeeze=False, sharex="col")
    for column, what in enumerate(whats):
        for row, (name, label) in enumerate(
            [("images_per_s", "images/s"), ("estimated_j_per_1000_images", "estimated J per 1000 images")]
        ):
            for workers, measured in tiles.items():
                by_tile = measured[what]
                sizes = [int(tile) for tile in by_tile]
                values = [by_tile[tile][name] for tile in by_tile]
                axes[row, column].plot(sizes, values, marker="o", label=f"{workers} workers")
            axes[row, column].set(xscale="log", ylim=(0, None), ylabel=label if column == 0 else "")
            axes[row, column].set_xticks(sizes, [str(size) for size in sizes])
            axes[row, column].minorticks_off()
        axes[0, column].set_title(what)
        axes[1, column].set_xlabel("images per tile")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path)


def _parser() -> argparse.ArgumentParser:
    parser = measuring.options("Images per second of training, beside PyTorch's on the CPU.")
    parser.add_argument(
        "--models", nargs="+", choices=models.__all__, default=models.__all__, help="default both"
    )
    parser.add_argument("--batches", nargs="+", type=measuring.positive, default=list(BATCHES))
    parser.add_argument("--images", type=measuring.positive, help="default 51200 (PyTorch 12800) and 2560")
    parser.add_argument("--scheduler", default="lws", help="one of StarPU's (default lws)")
    parser.add_argument("--unfused", action="store_true", help="a task for each layer, as fuse=false")
    parser.add_argument("--tile", type=measuring.positive, help="default the fastest of 16, 32, 64, ...")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw images/s and joules against the tile")
    parser.add_argument("--gpu", action="store_true", help="on one NVIDIA GPU instead of CPU cores")
    parser.add_argument(
        "--no-compile", action="store_true", help="leave torch.compile out, which takes minutes"
    )
    parser.add_argument(
        "--pytorch-python", default=sys.executable, metavar="PYTHON", help="one that has torch"
    )
    return parser


def _main_gpu(chosen: argparse.Namespace, pytorch: str | None) -> int:
    theirs = partial(_pytorch_gpu, chosen.pytorch_python) if pytorch else None
    try:
        return training_gpu.main(chosen, _ours, theirs, pytorch)
    except ChildError as error:
        print(error, file=sys.stderr)
        return 1


def main() -> int:
    """Measure, print, record."""
    chosen = _parser().parse_args()
    pytorch = pytorch_version(chosen.pytorch_python)
    if chosen.gpu:
        return _main_gpu(chosen, pytorch)
    machine = measuring.Machine()
    try:
        tiles = measure_tiles(chosen)
        cases, notes = _working(_cases(chosen, pytorch, tiles))
        found = measuring.alternate(cases, chosen.rounds)
    except ChildError as error:
        print(error, file=sys.stderr)
        return 1
    show_tiles(tiles)
    if chosen.plot:
        plot_tiles(tiles, chosen.plot)
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
                f"{what}: {r['medians']:.2f} x the best PyTorch (fastest rounds: {r['fastest rounds']:.2f} x); "
                f"{r['workers']:.2f} x one worker"
                for what, r in ratios.items()
            ),
            *notes,
            f"PyTorch {pytorch}" if pytorch else ABSENT,
            machine.line(),
        ],
    )
    measuring.record(
        chosen.json,
        "training",
        machine,
        pytorch=pytorch,
        fused=not chosen.unfused,
        tiles=tiles,
        images_per_s=columns,
        times_the_best_pytorch=ratios,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
