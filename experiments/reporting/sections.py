"""A report's sections as the page shows them: tables as text, figures, and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import pandas as pd

from experiments.progress import NOTHING
from experiments.reporting import courses
from experiments.reporting.figures import (
    accuracy_joules,
    codelets,
    energy_time,
    gantt,
    joules_per_epoch,
    power_trace,
)
from experiments.reporting.figures.style import Draw
from experiments.reporting.measures import MEASURES, Measure
from experiments.reporting.statistics import KIND_WORDS, Kind
from experiments.runs import Run, Runs


@final
@dataclass(frozen=True)
class PlacedFigure:
    """A figure with the name of its files, its title and what a reader who cannot see it is told."""

    name: str
    title: str
    text: str
    draw: Draw


@final
@dataclass(frozen=True)
class Table:
    """A table as text: column heads, and rows of cells."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Section:
    """What the page says of one setting."""

    title: str
    sentences: tuple[str, ...]
    doubts: tuple[str, ...]
    """What stands against believing small differences."""
    variants: Table
    derived: Table | None
    """EDP and the like; None where no joules are known."""
    paired: Table | None
    figures: tuple[PlacedFigure, ...]
    closer: tuple[tuple[str, tuple[PlacedFigure, ...], tuple[str, ...]], ...] = field(default=())
    """Runs looked at closely: title, figures, what there is no figure of."""


def number(value: float) -> str:
    """A number with four digits that count; a dash where it is not known."""
    if pd.isna(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:#.4g}".rstrip(".")


def rounded(value: float) -> str:
    """An end of an interval, with three digits that count."""
    if pd.isna(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:#.3g}".rstrip(".")


def percent(value: float) -> str:
    """A share with its sign as percent."""
    if pd.isna(value):
        return NOTHING
    return f"{100 * value:+,.1f}\u00a0%" if abs(value) < 10 else f"{100 * value:+,.0f}\u00a0%"


def _with_spread(row: Any, name: str, text: Any, end: Any) -> str:
    """A median, and under it what lies around it."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    around = "" if pd.isna(low) or pd.isna(high) else f"\n({end(low)} to {end(high)})"
    return f"{text(row[name])}{around}"


def variants_table(variants: pd.DataFrame, *, derived: bool = False) -> Table:
    """The medians of one setting, or what is derived from them; measures that nobody has are left out."""
    shown = [m for m in MEASURES if m.derived is derived and variants[m.column].notna().any()]
    quality = _common(variants["quality"])
    frameworks = variants["framework"].nunique() > 1
    heads = ["variant", *["framework"] * frameworks, *["joules are"] * (quality is None)]
    rows = []
    for _, row in variants.iterrows():
        facts = [str(row["label"]), *[str(row["framework"])] * frameworks]
        facts += [row["quality"] or NOTHING] * (quality is None)
        rows.append(
            (*facts, *(_with_spread(row, m.column, number, rounded) for m in shown), str(row["runs"]))
        )
    notes = _spread_notes(variants["spread"])
    if quality is not None:
        notes = (f"Joules, and all that is made of them, are {quality}.", *notes)
    return Table((*heads, *(_head(measure, variants) for measure in shown), "runs"), tuple(rows), notes)


def _head(measure: Measure, variants: pd.DataFrame) -> str:
    title = measure.title
    if measure.column == "joules_to_accuracy":
        title = f"{title} {variants['accuracy_asked'].iloc[0]:.2f}"
    return title if measure.unit == "1" else f"{title} ({measure.unit})"


def _common(qualities: pd.Series) -> str | None:
    """The quality that all share; None where they differ, or where there is none."""
    found = qualities.dropna().unique()
    return str(found[0]) if len(found) == 1 else None


def _spread_notes(kinds: pd.Series) -> tuple[str, ...]:
    known: list[Kind] = [kind for kind in KIND_WORDS if kind in set(kinds.dropna())]
    return tuple(
        f"In brackets: {KIND_WORDS[kind]}."
        if kind in ("interval", "range")
        else f"{KIND_WORDS[kind].capitalize()}."
        for kind in known
    )


def paired_table(paired: pd.DataFrame) -> Table:
    """The comparison with the baseline, most energy saved first."""
    quality = _common(paired["quality"]) or "of mixed qualities"
    baselines = list(dict.fromkeys(paired["baseline"]))
    several = len(baselines) > 1
    heads = ("variant", *["against"] * several, "energy saved", "slowdown", "change of EDP", "pairs")
    rows = tuple(
        (
            str(row["label"]),
            *[str(row["baseline"])] * several,
            *(
                _with_spread(row, name, percent, percent)
                for name in ("energy_saved", "slowdown", "edp_change")
            ),
            str(row["pairs"]) + (f" ({row['unpaired']} runs left over)" if row["unpaired"] else ""),
        )
        for _, row in paired.sort_values("energy_saved", ascending=False, kind="stable").iterrows()
    )
    notes = (
        "" if several else f"The baseline is {baselines[0]}.",
        f"Energy is {quality}. Pairs share seed and repeat; shown are medians of the pairs' ratios, as shares of the "
        "baseline's.",
        *_spread_notes(paired["spread"]),
    )
    return Table(heads, rows, tuple(note for note in notes if note))


def sentences(variants: pd.DataFrame, paired: pd.DataFrame | None) -> tuple[str, ...]:
    """What the tables say, in words."""
    known = variants.dropna(subset=["joules_per_epoch"])
    said: list[str] = []
    if len(known):
        least = known.sort_values("joules_per_epoch").iloc[0]
        fastest = known.sort_values("seconds_per_epoch").iloc[0]
        both = least["label"] == fastest["label"]
        said.append(f"Least energy{' and least time' if both else ''}: {_costs(least)}.")
        said += [] if both else [f"Least time: {_costs(fastest)}."]
    if paired is not None and paired["energy_saved"].notna().any():
        best = paired.sort_values("energy_saved", ascending=False).iloc[0]
        pairs = f"{best['pairs']} pair{'' if best['pairs'] == 1 else 's'}"
        takes = "takes" if best["energy_saved"] > 0 else "comes closest with"
        said.append(
            f"Against {best['baseline']}, {best['label']} {takes} {_change(-best['energy_saved'], 'energy')} and "
            f"{_change(best['slowdown'], 'time')} (medians of {pairs})."
        )
        if best["spread"] == "interval" and best["energy_saved_low"] <= 0 <= best["energy_saved_high"]:
            said.append(
                "The interval of that energy holds no change at all: the runs do not show a difference."
            )
    if paired is not None and len(paired) and not paired["pairs"].any():
        said.append("No run shares seed and repeat with one of the baseline: nothing could be paired.")
    return tuple(said)


def disturbed_words(frame: pd.DataFrame) -> list[str]:
    """How many of the runs other work disturbed."""
    count = int(frame["disturbed"].fillna(False).astype(bool).sum())
    return [f"{count} of {len(frame)} runs were disturbed by other work on the machine."] if count else []


def _costs(row: Any) -> str:
    joules, seconds = number(row["joules_per_epoch"]), number(row["seconds_per_epoch"])
    return f"{row['label']}, {joules} J ({row['quality']}) in {seconds} s per epoch"


def _change(share: float, of: str) -> str:
    if share > 1:
        return f"{1 + share:.1f} times the {of}"
    return f"{100 * abs(share):.1f} % {'more' if share > 0 else 'less'} {of}"


def figures(runs: Runs, frame: pd.DataFrame, variants: pd.DataFrame, stem: str) -> tuple[PlacedFigure, ...]:
    """The figures that put the variants of one setting side by side; those that nothing is known for are left out."""
    found = []
    labels = list(variants["label"])
    if variants["joules_per_epoch"].notna().any():
        text = "Energy per epoch against time per epoch of every variant, with the front."
        draw: Draw = partial(energy_time.draw, variants, frame)
        found.append(PlacedFigure(f"{stem}energy_time", "Energy against time", text, draw))
    by_block = courses.blocks(runs, frame)
    if len(by_block):
        text = "Energy of each epoch by variant."
        draw = partial(joules_per_epoch.draw, by_block, labels)
        found.append(PlacedFigure(f"{stem}joules_per_epoch", "Joules per epoch", text, draw))
        shown = courses.accuracy_by_joules(runs, by_block, courses.representatives(frame))
        if len(shown):
            asked = frame["accuracy_asked"].iloc[0]
            text = "Test accuracy against the energy of training so far."
            draw = partial(accuracy_joules.draw, shown, labels, None if pd.isna(asked) else float(asked))
            found.append(PlacedFigure(f"{stem}accuracy_joules", "Accuracy against joules", text, draw))
    return tuple(found)


def closer(run: Run, label: str, stem: str) -> tuple[str, tuple[PlacedFigure, ...], tuple[str, ...]]:
    """One run looked at closely: its title, its figures, and what there is no figure of, with the reason."""
    found, absent = [], []
    if run.has("power") and run.has("windows"):
        text = "Power over the run, with its epochs and the idle baseline."
        found.append(PlacedFigure(f"{stem}power", "Power", text, partial(power_trace.draw, run)))
    else:
        absent.append("No power trace was recorded.")
    if run.has("tasks") and len(run.tasks):
        text = "Tasks by worker over time, with the power below."
        found.append(PlacedFigure(f"{stem}gantt", "Tasks and power", text, partial(gantt.draw, run)))
        if (run.tasks["window"] == "epoch").any():
            text = "Busy time of each codelet by worker."
            draw: Draw = partial(codelets.draw, run)
            found.append(PlacedFigure(f"{stem}codelets", "Where each codelet ran", text, draw))
    else:
        why = "PyTorch has none" if run.summary["framework"] == "torch" else "it is written with trace=true"
        absent.append(f"No trace of tasks: {why}.")
    return f"{label}: {run.name}", tuple(found), tuple(absent)


def looked_at(frame: pd.DataFrame, paired: pd.DataFrame | None, *, each: bool) -> Sequence[tuple[str, str]]:
    """Run and label of those to look at closely: the baseline and the variant of least joules, or each variant."""
    shown = courses.representatives(frame)
    if not each:
        best = shown.sort_values(["joules_per_epoch", "seconds_per_epoch"])["label"].iloc[0]
        base = [] if paired is None or paired.empty else [paired["baseline"].iloc[0]]
        shown = shown[shown["label"].isin([*base, best])]
    return list(zip(shown["run"], shown["label"], strict=True))
