"""Stored baselines: what a configuration gave once, and how far another run of it is from that.

`baselines/NAME.json` holds the runs of one configuration:

* exact: weights, accuracy and loss of a training, joules and seconds of a simulation, with the processor's kernels and
  the versions of libraries that these digits hold for; on others a tolerance applies, and weights are not compared;
* measured: the joules and seconds of each repeat on one machine. Another run's median may be above theirs by three
  times their largest distance from it, at least by `LEAST_TOLERANCE`; on another machine they are not compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

from experiments import records
from experiments.identity import identity
from experiments.noise import machine_of
from experiments.runs import Run

FILE_VERSION = 1
EXACT = {
    False: ("weights_sha256", "accuracy", "loss"),
    True: ("joules_per_epoch", "seconds_per_epoch"),
}
"""By whether the run is simulated."""

MEASURED = ("joules_per_epoch", "seconds_per_epoch")
ELSEWHERE = {"accuracy": 0.02, "loss": 0.02, "joules_per_epoch": 1e-3, "seconds_per_epoch": 1e-3}
"""Largest relative difference (of accuracies: absolute) where the kernels or libraries are others."""

LEAST_TOLERANCE = 0.05
SPREADS = 3
FEWEST = 3
"""Repeats that a spread takes."""

Verdict = Literal["same", "within", "better", "moved", "worse", "not compared"]
REGRESSIONS: tuple[Verdict, ...] = ("moved", "worse")


class BaselineError(Exception):
    """A file is no baseline, or runs cannot make one."""


@final
@dataclass(frozen=True)
class Baseline:
    """What the runs of one configuration gave."""

    simulated: bool
    holds_for: Mapping[str, Any]
    """Processor and versions that the exact values hold for."""
    exact: Mapping[str, Any]
    machine: Mapping[str, Any]
    quality: str | None
    measured: Mapping[str, Sequence[float]]
    """Each repeat's; nothing of a simulation."""
    reason: str = ""
    """Why it is what it is."""
    commit: str | None = None


@final
@dataclass(frozen=True)
class Finding:
    """One quantity of a run beside its baseline's."""

    name: str
    quantity: str
    before: Any
    now: Any
    change: float | None
    """Relative; None where the values are no numbers, or not compared."""
    tolerance: float | None
    verdict: Verdict
    why: str = ""

    @property
    def is_regression(self) -> bool:
        """Whether it moved, or became worse than the tolerance allows."""
        return self.verdict in REGRESSIONS


def baseline_of(runs: Sequence[Run], reason: str = "", commit: str | None = None) -> Baseline:
    """What these runs, repeats of one configuration, gave. Raises BaselineError."""
    failed = [run for run in runs if run.summary["status"] != "finished"]
    if failed or not runs:
        what = (
            f"{failed[0].path} {failed[0].summary['status']}: {failed[0].summary['error']}"
            if failed
            else "no run"
        )
        raise BaselineError(what)
    if len({identity({**run.config, "repeat": 1}) for run in runs}) > 1:
        raise BaselineError(f"{runs[0].path.parent} holds several configurations; a baseline is of one")
    first = runs[0]
    simulated = bool(first.summary["simulated"])
    exact = {}
    for quantity in EXACT[simulated]:
        values = list(dict.fromkeys(run.summary[quantity] for run in runs))
        if len(values) > 1:
            raise BaselineError(f"{quantity} differs from repeat to repeat: {', '.join(map(str, values))}")
        exact[quantity] = values[0]
    measured = {} if simulated else {name: [run.summary[name] for run in runs] for name in MEASURED}
    return Baseline(
        simulated=simulated,
        holds_for=_holds_for(first),
        exact=exact,
        machine=machine_of(first.environment),
        quality=first.summary["energy_quality"],
        measured={name: values for name, values in measured.items() if None not in values},
        reason=reason,
        commit=commit,
    )


def _holds_for(run: Run) -> dict[str, Any]:
    environment = run.environment
    libraries = environment.get("libraries", {})
    own = {name: libraries.get(name) for name in ("numpy", "numba", "llvmlite")}
    starpu = environment.get("starpu", {}).get("version")
    torch = {"torch": environment["torch"]["version"]} if "torch" in environment else {}
    return {**environment.get("kernels", {}), **own, **torch, "starpu": starpu}


def compare(name: str, before: Baseline, runs: Sequence[Run]) -> list[Finding]:
    """Each quantity of the runs beside the baseline's; what keeps them from being compared is a finding, too."""
    try:
        now = baseline_of(runs)
    except BaselineError as error:
        return [Finding(name, "status", "finished", str(error), None, None, "moved")]
    if now.simulated != before.simulated:
        return [Finding(name, "simulated", before.simulated, now.simulated, None, None, "moved")]
    found = [_exactly(name, quantity, before, now) for quantity in before.exact]
    disturbed = sum(run.summary["disturbed"] is True for run in runs)
    return found + [_measured(name, quantity, before, now, disturbed) for quantity in before.measured]


def _exactly(name: str, quantity: str, before: Baseline, now: Baseline) -> Finding:
    was, is_ = before.exact[quantity], now.exact.get(quantity)
    change = None
    if isinstance(was, int | float) and isinstance(is_, int | float):
        change = is_ - was if quantity == "accuracy" else _relative(is_, was)
    if was == is_:
        return Finding(name, quantity, was, is_, change, 0.0, "same")
    others = _differing(before.holds_for, now.holds_for)
    if not others or (change is None and quantity in ELSEWHERE):
        return Finding(name, quantity, was, is_, change, 0.0, "moved")
    why = f"exact on {others}"
    if quantity not in ELSEWHERE:
        return Finding(name, quantity, was, is_, None, None, "not compared", why)
    assert change is not None
    within = abs(change) <= ELSEWHERE[quantity]
    return Finding(
        name, quantity, was, is_, change, ELSEWHERE[quantity], "within" if within else "moved", why
    )


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What the exact values hold for and this run did not have."""
    return ", ".join(f"{key} {before[key]}" for key in before if before[key] != now.get(key))


def _measured(name: str, quantity: str, before: Baseline, now: Baseline, disturbed: int) -> Finding:
    values = before.measured[quantity]
    was = statistics.median(values)
    tolerance = max(LEAST_TOLERANCE, SPREADS * max(abs(_relative(value, was)) for value in values))
    is_ = statistics.median(now.measured[quantity]) if now.measured.get(quantity) else None
    why = ""
    if is_ is None:
        return Finding(name, quantity, was, is_, None, tolerance, "moved", "not recorded any more")
    if dict(now.machine) != dict(before.machine):
        why = (
            f"of another machine ({before.machine.get('cpu')}, {before.machine.get('processors')} processors)"
        )
    elif quantity == "joules_per_epoch" and now.quality != before.quality:
        why = f"the baseline's are {before.quality}, these {now.quality}"
    elif len(values) < FEWEST:
        why = f"a spread takes {FEWEST} repeats"
    elif disturbed:
        why = f"{disturbed} runs were disturbed by other work"
    change = _relative(is_, was)
    if why:
        return Finding(name, quantity, was, is_, change, tolerance, "not compared", why)
    verdict: Verdict = "worse" if change > tolerance else "better" if change < -tolerance else "within"
    return Finding(name, quantity, was, is_, change, tolerance, verdict)


def _relative(value: float, base: float) -> float:
    return value / base - 1.0 if base else float("inf") if value else 0.0


def write(path: Path, baseline: Baseline) -> None:
    """Write a baseline whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write_json(path, {"file_version": FILE_VERSION, **asdict(baseline)})


def read(path: Path) -> Baseline:
    """Read a baseline. Raises BaselineError where there is none."""
    try:
        record = records.read_json(path)
        version = record.pop("file_version")
        if version != FILE_VERSION:
            raise BaselineError(f"{path} has version {version}, this checkout reads {FILE_VERSION}; --update")
        return Baseline(**record)
    except FileNotFoundError:
        raise BaselineError(f'{path} is not there; --update --reason "..." makes it') from None
    except (ValueError, KeyError, TypeError) as error:
        raise BaselineError(f"{path} is no baseline ({error})") from error
