"""`python -m experiments.noise RUNS`: the least effect that this machine can show, from an A/A experiment.

RUNS is what `python -m experiments.run -m +experiment=a_a` has left: one configuration under two names, interleaved.
The noise floor of N repeats is the 95 % quantile of |median(A) / median(B) - 1| over draws of N values for each name,
with replacement, from the values of both. What differs by less cannot be told from nothing. It is kept in
`.cache/calibration/noise-HOST.json`, where `experiments.table` finds it.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dahl.starpu.kernel import cache_root
from experiments import records
from experiments.identity import identity
from experiments.runs import Run, Runs, RunsError, load_runs

QUANTITIES = {"joules_per_epoch": "joules", "seconds_per_epoch": "seconds"}
DRAWS = 10_000
QUANTILE = 0.95
FILE_VERSION = 1
FEWEST = 3
"""Repeats of each name that a floor takes at least."""


class NoiseError(Exception):
    """These runs are no A/A experiment; the message says why."""


@final
@dataclass(frozen=True)
class NoiseFloor:
    """What an A/A experiment found."""

    machine: Mapping[str, Any]
    """`machine_of` the runs."""
    configuration: Mapping[str, Any]
    """What ran: scheduler, model, data set, batch size."""
    quality: str | None
    """Of the joules."""
    repeats: int
    disturbed: int
    """Runs that other work disturbed."""
    values: Mapping[str, Sequence[float]]
    """Each quantity's, of both names."""
    seen: Mapping[str, float]
    """|median(A) / median(B) - 1| as it was."""

    def least_effect(self, quantity: str, repeats: int) -> float | None:
        """The floor of a comparison of medians of so many repeats, as a share; None where the quantity is unknown."""
        values = self.values.get(quantity)
        return None if not values else floor(np.array(values), repeats)


def floor(values: npt.NDArray[np.float64], repeats: int, seed: int = 0) -> float:
    """The 95 % quantile of |median / median - 1| over draws of two times `repeats` of the values."""
    draw = np.random.default_rng(seed).integers(0, len(values), (2, DRAWS, repeats))
    ours, theirs = np.median(values[draw], axis=2)
    return float(np.quantile(np.abs(ours / theirs - 1.0), QUANTILE))


def machine_of(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What tells machines apart in `environment.json`."""
    return {name: environment.get(name) for name in ("cpu", "processors", "gpus")}


def examine(runs: Runs) -> NoiseFloor:
    """The noise floor of an A/A experiment's runs. Raises NoiseError."""
    finished = [run for run in runs if run.summary["status"] == "finished"]
    labels = sorted({str(run.summary["label"]) for run in finished if run.summary["label"] is not None})
    if len(labels) != 2 or any(run.summary["label"] is None for run in finished):
        raise NoiseError(
            f"{len(finished)} finished runs under the names {', '.join(labels) or 'none'}: an A/A experiment has two, "
            "+experiment=a_a"
        )
    if any(run.summary["simulated"] for run in finished):
        raise NoiseError("a simulation has no noise: the same run gives the same digits")
    if len({_same(run) for run in finished}) > 1:
        raise NoiseError(
            "the runs differ in more than their names and repeats; give one configuration's folder"
        )
    if len({str(machine_of(run.environment)) for run in finished}) > 1:
        raise NoiseError("the runs are of several machines, each of which has a floor of its own")
    by_name = [[run for run in finished if run.summary["label"] == label] for label in labels]
    repeats = min(map(len, by_name))
    if repeats < FEWEST:
        raise NoiseError(f"{repeats} finished runs of a name: a noise floor takes at least {FEWEST} of each")
    values, seen = {}, {}
    for quantity in QUANTITIES:
        sides = [[run.summary[quantity] for run in side] for side in by_name]
        if any(value is None for side in sides for value in side):
            continue
        values[quantity] = [*sides[0], *sides[1]]
        seen[quantity] = abs(float(np.median(sides[0]) / np.median(sides[1])) - 1.0)
    if not values:
        raise NoiseError("some runs have neither joules nor seconds")
    return NoiseFloor(
        machine=machine_of(finished[0].environment),
        configuration=_configuration(finished[0]),
        quality=finished[0].summary["energy_quality"],
        repeats=repeats,
        disturbed=sum(run.summary["disturbed"] is True for run in finished),
        values=values,
        seen=seen,
    )


def _same(run: Run) -> str:
    return identity({**run.config, "label": None, "repeat": 1})


def _configuration(run: Run) -> dict[str, Any]:
    named = {key: run.summary[key] for key in ("framework", "scheduler", "model", "dataset", "platform")}
    return {**named, "batch_size": run.config.get("batch_size"), "epochs": run.summary["epochs"]}


def default_path() -> Path:
    """Where this machine's noise floors are kept."""
    return cache_root() / "calibration" / f"noise-{platform.node() or 'host'}.json"


def keep(found: NoiseFloor, path: Path) -> None:
    """Add a floor to a file, in place of one of the same configuration and machine."""
    same = (found.machine, found.configuration, found.quality)
    others = [one for one in read(path) if (one.machine, one.configuration, one.quality) != same]
    path.parent.mkdir(parents=True, exist_ok=True)
    floors = [asdict(one) for one in (*others, found)]
    records.write_json(path, {"file_version": FILE_VERSION, "floors": floors})


def read(path: Path) -> list[NoiseFloor]:
    """The floors of a file, oldest first; none where it is not there. Raises NoiseError for another file."""
    if not path.exists():
        return []
    try:
        record = records.read_json(path)
        if record["file_version"] != FILE_VERSION:
            raise ValueError(f"version {record['file_version']}")
        return [NoiseFloor(**one) for one in record["floors"]]
    except (ValueError, KeyError, TypeError) as error:
        raise NoiseError(f"{path} is no file of experiments.noise ({error}); move it away") from error


def closest(floors: Sequence[NoiseFloor], machine: Mapping[str, Any], model: str) -> NoiseFloor | None:
    """The latest floor of a machine, one of the same model where there is one; None where it has none."""
    own = [one for one in floors if dict(one.machine) == dict(machine)]
    return next(
        iter([one for one in reversed(own) if one.configuration["model"] == model] or own[::-1]), None
    )


def words(found: NoiseFloor, repeats: int) -> str:
    """What a comparison of medians of so many runs on this machine cannot show."""
    said = []
    for quantity, name in QUANTITIES.items():
        least = found.least_effect(quantity, repeats)
        if least is not None:
            said.append(f"{percent(least)} in {name}")
    what = found.configuration
    disturbed = f", {found.disturbed} runs disturbed by other work" if found.disturbed else ""
    runs = "single runs" if repeats == 1 else f"medians of {repeats} runs"
    return (
        f"Noise floor: {runs} that differ by less than {' or '.join(said)} show nothing on this machine "
        f"(A/A of {found.repeats} repeats: {what['scheduler']}, {what['model']}, {what['epochs']} epochs{disturbed})."
    )


def percent(share: float) -> str:
    """A share in percent, with two digits."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.noise", description=__doc__)
    parser.add_argument("runs", type=Path, help="the folder of an A/A experiment, such as runs/a_a")
    parser.add_argument("--file", type=Path, default=None, help="keep it there (default: see above)")
    asked = parser.parse_args(arguments)
    path = asked.file or default_path()
    try:
        found = examine(load_runs(asked.runs))
        keep(found, path)
    except (NoiseError, RunsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for quantity, name in QUANTITIES.items():
        if quantity in found.values:
            spread = np.ptp(found.values[quantity]) / np.median(found.values[quantity])
            quality = f" ({found.quality})" if name == "joules" else ""
            print(
                f"{name}{quality}: least effect {percent(found.least_effect(quantity, found.repeats) or 0.0)}, "
                f"A and B differ by {percent(found.seen[quantity])}, all values within {percent(spread)}"
            )
    print(words(found, found.repeats))
    print(f"kept in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
