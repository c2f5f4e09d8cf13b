"""`python -m experiments.report DIR...`: runs side by side, as tables, figures and one page.

Writes `report.html`, which needs nothing but itself, `tables/` (CSV and Parquet) and `figures/` (PNG and PDF).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pandas as pd

from experiments import noise
from experiments.progress import QUALITY_WORDS
from experiments.records import write_whole
from experiments.reporting import measures, sections, statistics
from experiments.reporting.figures.style import save
from experiments.reporting.page import write_page
from experiments.reporting.sections import PlacedFigure, Section, Table
from experiments.reporting.variants import parse_baseline
from experiments.runs import Run, Runs, RunsError, load_runs

DEFAULT_BASELINE = "eager"
RESAMPLES = 9_999

TERMS = {
    **{name: words.partition(": ")[2] for name, words in QUALITY_WORDS.items()},
    "net of idle": "without the joules that an idle machine takes in the same time",
    "EDP, ED2P": "energy times time, and times time squared: less is better",
    "energy to accuracy": "joules of training until the first epoch after which the test accuracy was reached",
    "energy over bound": "joules over the least that any schedule takes; controllable: without the idle machine's",
    "energy saved": "1 - joules over the baseline's; above 0 % is less energy",
    "slowdown": "seconds over the baseline's - 1; below 0 % is faster",
    "front": "the variants that no other one beats in both time and energy",
}


@final
@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    out: Path
    baseline: str | None = None
    accuracy: float | None = None
    mixed: bool = False
    each: bool = False
    seed: int = 0
    resamples: int = RESAMPLES
    noise: Path | None = None
    """Where noise floors are kept; None: where `experiments.noise` keeps this machine's."""


@final
@dataclass(frozen=True)
class Comparison:
    """The frames that all else is made of."""

    runs: pd.DataFrame
    variants: pd.DataFrame
    paired: pd.DataFrame | None
    left_out: pd.DataFrame


def compare(runs: Runs, asked: Asked) -> Comparison:
    """Work the tables out. Raises RunsError where nothing finished, for mixed qualities, for an unknown baseline."""
    frame = measures.measured(runs, asked.accuracy)
    if not asked.mixed:
        measures.check_qualities(frame)
    variants = statistics.medians(frame, seed=asked.seed, resamples=asked.resamples)
    baseline = asked.baseline
    if baseline is None and (frame["scheduler"] == DEFAULT_BASELINE).any():
        baseline = DEFAULT_BASELINE
    paired = None
    if baseline is not None:
        factors = parse_baseline(baseline.split(","))
        paired = statistics.paired(frame, factors, seed=asked.seed, resamples=asked.resamples)
    return Comparison(frame, variants, paired, measures.left_out(runs))


def write_tables(found: Comparison, folder: Path) -> None:
    """Write each table as CSV and Parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    tables: Mapping[str, pd.DataFrame | None] = {
        "runs": found.runs.drop(columns="factors"),
        "variants": found.variants,
        "paired": found.paired,
        "left_out": found.left_out,
    }
    for name, table in tables.items():
        if table is not None:
            write_whole(folder / f"{name}.csv", table.to_csv(index=False).encode())
            write_whole(folder / f"{name}.parquet", table.to_parquet(index=False))


def sections_of(runs: Runs, found: Comparison, asked: Asked) -> list[Section]:
    """A section for each setting, in the order of the runs. Raises NoiseError."""
    floors = noise.read(asked.noise or noise.default_path())
    by_folder = {str(run.path): run for run in runs}
    settings = list(dict.fromkeys(found.runs["setting"]))
    made = []
    for place, setting in enumerate(settings, start=1):
        stem = f"{place}_" if len(settings) > 1 else ""
        frame, variants = (table[table["setting"] == setting] for table in (found.runs, found.variants))
        paired = None if found.paired is None or found.paired.empty else found.paired
        paired = None if paired is None else paired[paired["setting"] == setting]
        paired = None if paired is None or paired.empty else paired
        chosen = sections.looked_at(frame, paired, each=asked.each)
        doubts = [*sections.disturbed_words(frame), *noise_words(floors, frame, by_folder)]
        made.append(
            Section(
                setting,
                sections.sentences(variants, paired),
                tuple(doubts),
                sections.variants_table(variants),
                sections.variants_table(variants, derived=True)
                if variants["edp_j_s"].notna().any()
                else None,
                None if paired is None else sections.paired_table(paired),
                sections.figures(runs, frame, variants, stem),
                tuple(
                    sections.closer(by_folder[folder], label, f"{stem}run{number}_")
                    for number, (folder, label) in enumerate(chosen, start=1)
                ),
            )
        )
    return made


def noise_words(
    floors: Sequence[noise.NoiseFloor], frame: pd.DataFrame, by_folder: Mapping[str, Run]
) -> list[str]:
    """The noise floor of each machine that runs of a setting were measured on, or that it is not known."""
    real = frame[~frame["simulated"].fillna(False).astype(bool)]
    said: dict[str, None] = {}
    for folder in real["run"]:
        run = by_folder[folder]
        found = noise.closest(floors, noise.machine_of(run.environment), str(run.summary["model"]))
        least = int(real.groupby("label").size().min())
        unknown = "The noise floor of the machine is not known: an A/A experiment tells it (docs/running.md)."
        said[unknown if found is None else noise.words(found, least)] = None
    return list(said)


def write_report(runs: Runs, asked: Asked) -> Path:
    """Write tables, figures and the page; returns the page's path. Raises RunsError."""
    found = compare(runs, asked)
    made = sections_of(runs, found, asked)
    write_tables(found, asked.out / "tables")
    (asked.out / "figures").mkdir(parents=True, exist_ok=True)
    for figure in _figures(made):
        save(figure.draw, asked.out / "figures" / figure.name)
    page = asked.out / "report.html"
    names = dict.fromkeys(runs.summary["experiment"])
    write_page(
        page,
        title=f"What the policies cost: {', '.join(names)}",
        facts=_facts(runs, found),
        sections=made,
        left_out=_left_out_table(found.left_out),
        terms=TERMS,
    )
    return page


def _figures(made: Sequence[Section]) -> list[PlacedFigure]:
    own = [figure for section in made for figure in section.figures]
    return own + [figure for section in made for _, figures, _ in section.closer for figure in figures]


def _facts(runs: Runs, found: Comparison) -> list[tuple[str, str]]:
    """What ran where, as far as the records agree."""
    environments = [run.environment for run in runs if run.path.joinpath("environment.json").exists()]
    cpus = {f"{one.get('cpu')}, {one.get('processors')} processors" for one in environments}
    commits = {
        str(one.get("commit"))[:12] + (" with changes" if one.get("dirty") else "") for one in environments
    }
    native = not found.runs["simulated"].fillna(False).all()
    facts = [
        ("runs", f"{len(found.runs)} finished, {len(found.left_out)} left out"),
        ("joules", ", ".join(QUALITY_WORDS[name] for name in _qualities(found)) or "none recorded"),
    ]
    if native:
        facts.append(("machine", "; ".join(sorted(cpus))))
    return [*facts, ("commit", ", ".join(sorted(commits)))]


def _qualities(found: Comparison) -> list[str]:
    known = set(found.runs["energy_quality"].dropna())
    return [name for name in QUALITY_WORDS if name in known]


def _left_out_table(left_out: pd.DataFrame) -> Table | None:
    if left_out.empty:
        return None
    rows = tuple(
        (
            Path(str(row["run"])).name,
            *(sections.NOTHING if pd.isna(row[k]) else str(row[k]) for k in ("status", "reason")),
        )
        for _, row in left_out.iterrows()
    )
    return Table(("run", "status", "why"), rows)


def _asked(arguments: Sequence[str] | None) -> tuple[list[str], Asked]:
    parser = argparse.ArgumentParser(prog="python -m experiments.report", description=__doc__)
    parser.add_argument(
        "runs", nargs="+", metavar="DIR", help="folders of runs, such as runs/schedulers_on_host"
    )
    parser.add_argument(
        "--baseline",
        metavar="FACTORS",
        help="what others are set against: a scheduler, or scheduler=eager,batch_size=64 (default eager, if it ran)",
    )
    parser.add_argument("--out", type=Path, help="folder to write (default: report in the first DIR)")
    parser.add_argument(
        "--accuracy", type=float, help="count the energy to this accuracy (default: what all reach)"
    )
    parser.add_argument(
        "--mixed", action="store_true", help="compare joules of different qualities all the same"
    )
    parser.add_argument("--each", action="store_true", help="look closely at a run of each variant")
    parser.add_argument("--noise", type=Path, metavar="FILE", help="noise floors (default: this machine's)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, help=f"of the bootstrap (default {RESAMPLES})"
    )
    given = parser.parse_args(arguments)
    out = given.out or Path(given.runs[0]) / "report"
    return given.runs, Asked(
        out,
        given.baseline,
        given.accuracy,
        given.mixed,
        given.each,
        given.seed,
        given.resamples,
        given.noise,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 2 where there is nothing to compare."""
    folders, asked = _asked(arguments)
    try:
        runs = load_runs(*folders)
        for folder, problem in runs.problems.items():
            print(f"left out: {folder} {problem}", file=sys.stderr)
        page = write_report(runs, asked)
    except (RunsError, noise.NoiseError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{page}\ntables: {asked.out / 'tables'}\nfigures: {asked.out / 'figures'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
