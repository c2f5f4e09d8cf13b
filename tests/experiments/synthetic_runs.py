"""Folders of runs with known numbers, by the project's own writers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from energy import Flag, PowerStream
from energy.counters import Step
from experiments import records
from experiments.schemas import TASKS, WINDOWS, epoch_schema
from experiments.summary import summarise
from experiments.tables import TableStream, finish_tables, power_stream_path
from tests.experiments.conftest import CHOICES, configuration

CHANNELS = ("model:base", "model:cpu")
ZERO_NS = 5_000_000_000
"""StarPU's clock shows 0 at this monotonic time."""
EPOCH_S, EPOCH_J = 2.0, 60.0
WORKERS = ("CPU 0", "CPU 1")


def write_run(
    folder: Path,
    scheduler: str = "eager",
    *,
    seed: int = 0,
    seconds: Sequence[float] = (EPOCH_S, EPOCH_S),
    joules: Sequence[float] = (EPOCH_J, EPOCH_J),
    accuracies: Sequence[float | None] = (0.5, 0.75),
    quality: str = "estimated",
    simulated: bool = False,
    platform: str = "host",
    status: str = "finished",
    error: str | None = None,
    tasks: bool = True,
    power: bool = True,
    changes: dict[str, Any] | None = None,
    scheduler_config: dict[str, Any] | None = None,
    platform_config: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Write a run whose epochs took these seconds and joules; returns its folder.

    Each epoch has two tasks, each on half of it: the first on worker 0, the second on worker 1.
    A third of its joules is `model:base`'s. `changes` go into the summary.
    """
    run_dir = folder / f"20260101T{len(list(folder.glob('*'))):06d}Z-{scheduler}-basic_cnn-{seed:06x}"
    run_dir.mkdir(parents=True)
    if platform_config is not None:
        config["platform"] = platform_config
    if scheduler_config is not None:
        config["scheduler"] = scheduler_config
    made = configuration(
        choices=CHOICES | {"scheduler": scheduler, "platform": platform}, seed=seed, sweep=None, **config
    )
    records.write_config(run_dir, made)
    variant = "simgrid" if simulated else "native"
    records.write_json(
        run_dir / records.ENVIRONMENT_NAME,
        {"commit": "c0ffee", "cpu": "a CPU", "starpu": {"variant": variant, "workers": list(WORKERS)}},
    )
    rows = [
        {"epoch": n, "block": n, "images": 600, "seconds": s, "loss": 1 / n, "accuracy": a}
        | {"gross_j": j, "net_j": j / 2, "quality": quality, "resolvable": True}
        for n, (s, j, a) in enumerate(zip(seconds, joules, accuracies, strict=True), start=1)
    ]
    summary = summarise(made, rows, status=status, error=error, simulated=simulated, weights_sha256="ab" * 32)
    records.write_json(run_dir / records.SUMMARY_NAME, summary | (changes or {}))
    _write_tables(run_dir, rows, quality, tasks)
    if power:
        _write_power(run_dir, rows, quality, 0 if simulated else ZERO_NS)
    finish_tables(run_dir)
    return run_dir


def _write_tables(run_dir: Path, rows: Sequence[dict[str, Any]], quality: str, tasks: bool) -> None:
    schema = epoch_schema(CHANNELS)
    epochs, windows = TableStream(run_dir, "epochs", schema), TableStream(run_dir, "windows", WINDOWS)
    trace = TableStream(run_dir, "tasks", TASKS) if tasks else None
    start_s = 1.0
    for row in rows:
        epochs.append_row(dict.fromkeys(schema.names) | row)
        end_s = start_s + row["seconds"]
        for channel, share in zip(CHANNELS, (1 / 3, 2 / 3), strict=True):
            windows.append_row(
                _window("epoch", row["epoch"], channel, start_s, end_s, share * row["gross_j"], quality)
            )
        if trace:
            _append_tasks(trace, row["epoch"], start_s, end_s)
        start_s = end_s
    for channel in CHANNELS:
        windows.append_row(_window("run", 0, channel, 1.0, start_s, None, quality))
    for table in filter(None, (epochs, windows, trace)):
        table.close()


def _window(
    name: str, epoch: int, channel: str, start_s: float, end_s: float, gross_j: float | None, quality: str
) -> dict[str, Any]:
    gross = {"gross_j": gross_j, "net_j": None if gross_j is None else gross_j / 2}
    times = {"start_s": start_s, "end_s": end_s, "seconds": end_s - start_s}
    ns = {f"{end}_t_mono_ns": ZERO_NS + round(at * 1e9) for end, at in (("start", start_s), ("end", end_s))}
    known = {"window": name, "epoch": epoch, "last_epoch": epoch, "channel": channel, "in_total": True}
    known |= {"quality": quality, "complete": True, "resolvable": True}
    return dict.fromkeys(WINDOWS.names) | known | gross | times | ns


def _append_tasks(trace: TableStream, epoch: int, start_s: float, end_s: float) -> None:
    middle_s = (start_s + end_s) / 2
    first = 2 * (epoch - 1)
    trace.append(
        {
            "window": ["epoch"] * 2,
            "epoch": [epoch] * 2,
            "task": [first, first + 1],
            "codelet": ["conv2d", "sgd_2d"],
            "tile": [0, 0],
            "worker": [0, 1],
            "submit_s": [start_s] * 2,
            "ready_s": [start_s, middle_s],
            "start_s": [start_s, middle_s],
            "end_s": [middle_s, end_s],
            "predicted_s": [float("nan")] * 2,
            "predicted_j": [float("nan")] * 2,
        }
    )


def _write_power(run_dir: Path, rows: Sequence[dict[str, Any]], quality: str, zero_ns: int) -> None:
    """Ten readings an epoch of each channel, at even watts."""
    stream = PowerStream(power_stream_path(run_dir))
    stream.declare({name: {"component": name, "in_total": True, "quality": quality} for name in CHANNELS})
    start_s = 1.0
    for row in rows:
        for number in range(1, 11):
            at_ns = zero_ns + round((start_s + row["seconds"] * number / 10) * 1e9)
            watts = row["gross_j"] / row["seconds"]
            for channel, share in zip(CHANNELS, (1 / 3, 2 / 3), strict=True):
                joules = share * row["gross_j"] / 10
                stream.append([(channel, Step(at_ns, None, joules, share * watts, Flag.BY_MODEL))])
        start_s += row["seconds"]
    stream.close()
