"""`python -m experiments.attribute RUN`: which codelets the joules of a run's counters went to. Modelled.

Fits the watts of each codelet to the readings of each counter in the total (`energy.attribution`), and writes
`attribution.json` into the run's folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from energy import Attribution, AttributionError, MeterRecords, attribute, busy_share
from energy.attribution import meter_records
from experiments import records
from experiments.tables import read_table

FILE_NAME = "attribution.json"


class RunUnfitError(Exception):
    """A run's records do not hold what an attribution needs; the message says what and why."""


def attribute_run(run_dir: Path, resamples: int = 200) -> list[dict[str, Any]]:
    """Attribute the joules of each counter in the total of a run; returns what `attribution.json` holds.

    Raises RunUnfitError, AttributionError.
    """
    windows, tasks, power = (_table(run_dir, name) for name in ("windows", "tasks", "power"))
    environment = records.read_json(run_dir / records.ENVIRONMENT_NAME)
    counted = windows[windows["in_total"] & (windows["quality"] == "measured")]
    if counted.empty:
        raise RunUnfitError(f"{run_dir} read no counter: its joules are the power model's, task by task")
    idle = environment.get("energy", {}).get("idle_baseline")
    if idle is None:
        raise RunUnfitError(f"{run_dir} has no idle baseline: run it with energy.idle_baseline_s=10")
    (run,) = windows[windows["window"] == "run"].drop_duplicates("window").itertuples()
    classes = [_worker_class(name) for name in environment["starpu"]["workers"]]
    columns = {name: tasks[name].to_numpy() for name in ("worker", "codelet", "start_s", "end_s")}
    found = []
    for channel in dict.fromkeys(counted["channel"]):
        if channel not in idle["paused"]:
            raise RunUnfitError(f"{run_dir}: the idle watts of {channel} are not known")
        meter = _inside(
            meter_records(power, channel, run.start_t_mono_ns - round(run.start_s * 1e9)),
            run.start_s,
            run.end_s,
        )
        idle_w = float(idle["paused"][channel]["watts"])
        fit = attribute(meter, columns, classes, idle_w, resamples=resamples)
        found.append(_record(fit, busy_share(meter, columns, classes, idle_w)))
    return found


def _table(run_dir: Path, name: str) -> Any:
    table, _ = read_table(run_dir, name)
    if table is None:
        raise RunUnfitError(
            f"{run_dir} has no {name}.parquet{'; run it with trace=true' * (name == 'tasks')}"
        )
    return table.to_pandas()


def _worker_class(name: str) -> str:
    """The class of a native worker, by StarPU's name for it."""
    return "cpu" if name.startswith("CPU") else "cuda"


def _inside(meter: MeterRecords, start_s: float, end_s: float) -> MeterRecords:
    kept = (meter.start_s >= start_s) & (meter.end_s <= end_s)
    return MeterRecords(meter.channel, meter.start_s[kept], meter.end_s[kept], meter.joules[kept])


def _record(fit: Attribution, share_j: dict[tuple[str, str], float]) -> dict[str, Any]:
    """A fit as JSON, each class with what the busy-time share gives it."""
    classes = [
        asdict(power)
        | {"merged": power.merged, "busy_share_j": sum(share_j.get(name, 0.0) for name in power.classes)}
        for power in fit.classes
    ]
    return asdict(fit) | {"quality": fit.quality, "classes": classes}


def show(console: Console, found: Sequence[dict[str, Any]]) -> None:
    """A table for each counter."""
    for meter in found:
        table = Table(title=f"{meter['channel']} (modelled)", title_justify="left")
        table.add_column("codelets")
        for name in ("W above idle", "95 %", "busy s", "J", "J by busy time"):
            table.add_column(name, justify="right")
        for power in sorted(meter["classes"], key=lambda power: -power["joules"]):
            table.add_row(
                ", ".join(codelet for codelet, _ in power["classes"]),
                f"{power['watts']:.2f}",
                f"{power['low_w']:.2f} to {power['high_w']:.2f}",
                f"{power['busy_s']:.3f}",
                f"{power['joules']:.3f}",
                f"{power['busy_share_j']:.3f}",
            )
        console.print(table)
        console.print(
            f"{meter['intervals']} readings, {meter['rank']} classes that run apart, condition "
            f"{meter['condition']:.1f}, unexplained {meter['residual_share']:.1%} of the joules above idle",
            highlight=False,
            soft_wrap=True,
        )
        if any(power["merged"] for power in meter["classes"]):
            console.print("codelets in one row never run apart: their watts are those of the mixture")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.attribute", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder")
    status = 0
    for run_dir in parser.parse_args(arguments).runs:
        try:
            found = attribute_run(run_dir)
            records.write_json(run_dir / FILE_NAME, {"meters": found})
        except (RunUnfitError, AttributionError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
            continue
        show(Console(), found)
    return status


if __name__ == "__main__":
    sys.exit(main())
