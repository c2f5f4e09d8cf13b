"""`python -m experiments.regress`: has a change cost accuracy or joules?

Runs the configurations of `configs/regress.yaml` and holds each against its baseline in `baselines/`; with RUNS, those
folders of runs instead, each against the baseline of its name. Exits with 1 where something moved, and says what.

`--update --reason TEXT` makes the baselines from these runs, for who has moved them on purpose.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments import environment
from experiments.baselines import FEWEST, Baseline, BaselineError, Finding, baseline_of, compare, read, write
from experiments.runs import Run, RunsError, load_runs
from experiments.validation import CHECKOUT, CONFIGS

BASELINES = CHECKOUT / "baselines"


class RegressError(Exception):
    """The command cannot do what it is asked; the message says why."""


def cases() -> dict[str, list[str]]:
    """The overrides of each configuration that is run."""
    found: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "regress.yaml"))
    return {str(name): [str(override) for override in overrides] for name, overrides in found.items()}


def run_cases(chosen: dict[str, list[str]], output: Path) -> None:
    """Run each configuration into the folder of its name: simulations side by side, then the others."""
    simulated = {
        name: own
        for name, own in chosen.items()
        if any(override.startswith("platform=") and override != "platform=host" for override in own)
    }
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda name: _run_case(name, simulated[name], output), simulated))
    for name, own in chosen.items():
        if name not in simulated:
            _run_case(name, own, output)


def _run_case(name: str, overrides: Sequence[str], output: Path) -> None:
    many = ["-m"] if any(override.startswith("repeats=") for override in overrides) else []
    own = {"PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", *many, *overrides, f"output={output}", f"name={name}"],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    if not list(output.glob(f"{name}/*/summary.json")):
        raise RegressError(f"{name}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    print(f"ran {name}", flush=True)


def runs_by_name(folders: Sequence[Path]) -> dict[str, list[Run]]:
    """The runs in these folders, by the name of the folder around each. Raises RunsError."""
    found = load_runs(*folders)
    if not found.problems.empty:
        raise RunsError(f"{found.problems.index[0]}: {found.problems.iloc[0]}")
    by_name: dict[str, list[Run]] = {}
    for run in found:
        by_name.setdefault(run.path.absolute().parent.name, []).append(run)
    return by_name


def examine(runs: dict[str, list[Run]], baselines: Path) -> list[Finding]:
    """All that there is to say of these runs. Raises BaselineError where one has no baseline."""
    stored: dict[str, Baseline] = {name: read(baselines / f"{name}.json") for name in runs}
    return [finding for name, own in runs.items() for finding in compare(name, stored[name], own)]


def update(runs: dict[str, list[Run]], baselines: Path, reason: str) -> None:
    """Make the baselines from these runs. Raises BaselineError, and then leaves all as they were.

    Joules and seconds of runs that were disturbed, or too few for a spread, are not kept.
    """
    commit = environment.commit(CHECKOUT)["commit"]
    made = {name: baseline_of(own, reason, commit) for name, own in runs.items()}
    for name, baseline in made.items():
        disturbed = sum(run.summary["disturbed"] is True for run in runs[name])
        if disturbed and baseline.measured:
            print(
                f"{name}: {disturbed} runs were disturbed by other work; their joules and seconds are not kept"
            )
            baseline = replace(baseline, measured={})
        if len(runs[name]) < FEWEST:  # no spread, and so no tolerance
            baseline = replace(baseline, measured={})
        write(baselines / f"{name}.json", baseline)
        print(f"wrote {baselines / name}.json")


def show(findings: Sequence[Finding]) -> None:
    """Print the table, then what moved."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table("baseline", "quantity", "was", "is", "change", "tolerance", "", title_justify="left")
    for column in table.columns[2:6]:
        column.justify = "right"
    for one in findings:
        words = f"{one.verdict}: {one.why}" if one.why else one.verdict
        style = "red" if one.is_regression else "dim" if one.verdict == "not compared" else None
        change = "" if one.change is None else f"{100 * one.change:+.3g} %"
        tolerance = (
            "" if one.tolerance is None else f"{100 * one.tolerance:.3g} %" if one.tolerance else "exact"
        )
        table.add_row(
            one.name, one.quantity, _shown(one.before), _shown(one.now), change, tolerance, words, style=style
        )
    console.print(table)
    for one in findings:
        if one.is_regression:
            print(f"{one.verdict}: {one.name}: {one.quantity} was {one.before}, is {one.now}")
        elif one.verdict == "better":
            print(f"better: {one.name}: {one.quantity}; --update makes that the baseline")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)[:12] if isinstance(value, str) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.regress", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of runs, in place of running")
    parser.add_argument("--case", action="append", metavar="NAME", help="run only this configuration")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the runs there")
    parser.add_argument("--baselines", type=Path, default=BASELINES, metavar="DIR")
    parser.add_argument("--update", action="store_true", help="make the baselines from these runs")
    parser.add_argument("--reason", default="", help="why the baselines move")
    asked = parser.parse_args(arguments)
    try:
        if asked.update and not asked.reason.strip():
            raise RegressError('--update needs --reason "...": why do the baselines move?')
        with tempfile.TemporaryDirectory(prefix="regress-") as temporary:
            folders = asked.runs or [_run(asked.case, asked.keep or Path(temporary))]
            runs = runs_by_name(folders)
            if asked.update:
                update(runs, asked.baselines, asked.reason)
                return 0
            findings = examine(runs, asked.baselines)
    except (RegressError, BaselineError, RunsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(findings)
    moved = sum(one.is_regression for one in findings)
    print(f"{moved} of {len(findings)} quantities moved" if moved else "nothing moved")
    return 1 if moved else 0


def _run(names: Sequence[str] | None, output: Path) -> Path:
    """Run the cases of these names, or all."""
    known = cases()
    for name in names or ():
        if name not in known:
            raise RegressError(f"unknown case '{name}'; there are: {', '.join(known)}")
    if output.exists() and any(output.iterdir()):
        raise RegressError(f"{output} is not empty; name another folder")
    run_cases({name: own for name, own in known.items() if not names or name in names}, output.absolute())
    return output


if __name__ == "__main__":
    sys.exit(main())
