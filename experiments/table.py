"""`python -m experiments.table RUNS`: joules and seconds per epoch of every scheduler on every platform.

Reads the `summary.json` of each run under the folder and prints a Markdown table: a row for each scheduler, and
for each platform a column of joules and one of seconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import noise, records
from experiments.progress import NOTHING, joules
from experiments.runs import RunsError
from experiments.summary import QUALITIES

Summary = Mapping[str, Any]
Column = tuple[str, ...]

_NAMES = ("platform", "workload", "model", "dataset")


def read_summaries(folder: Path) -> list[dict[str, Any]]:
    """The summaries under a folder, oldest first.

    Raises RunsError where there are none, and where one is of an earlier version of the records.
    """
    found = {path: records.read_json(path) for path in sorted(folder.rglob(records.SUMMARY_NAME))}
    if not found:
        raise RunsError(
            f"{folder}: no run's {records.SUMMARY_NAME} in there; `output=` and `name=` say where"
        )
    for path, summary in found.items():
        if "platform" not in summary:
            raise RunsError(f"{path}: names no platform (an earlier version wrote it); run it again")
    return list(found.values())


def markdown(summaries: Sequence[Summary], remarks: Sequence[str] = ()) -> str:
    """The table, followed by what has to be said of its numbers, and `remarks`.

    Runs of one scheduler in one column are shown by their median; a run that did not finish by its status.
    """
    columns = sorted({_column(summary) for summary in summaries})
    titles = [_title(column, columns) for column in columns]
    head = ["scheduler"]
    for column, title in zip(columns, titles, strict=True):
        quality = _quality([summary for summary in summaries if _column(summary) == column])
        head += [f"{title}: J ({quality})" if quality else f"{title}: J", f"{title}: s"]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for scheduler in sorted({summary["scheduler"] for summary in summaries}):
        row = [f"`{scheduler}`"]
        for column in columns:
            row += _cells([s for s in summaries if s["scheduler"] == scheduler and _column(s) == column])
        rows.append(row)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", *_remarks(summaries), *remarks])


def _column(summary: Summary) -> Column:
    return tuple(str(summary.get(name, "cnn")) for name in _NAMES)


def _title(column: Column, columns: Sequence[Column]) -> str:
    """The platform's name, with model and data set where the columns differ in them."""
    differing = [i for i in range(1, len(_NAMES)) if len({other[i] for other in columns}) > 1]
    return ", ".join([column[0], *(column[i] for i in differing)])


def _quality(summaries: Sequence[Summary]) -> str | None:
    """The weakest of the qualities."""
    found = [s["energy_quality"] for s in summaries if s["energy_quality"] is not None]
    return max(found, key=QUALITIES.index) if found else None


def _cells(summaries: Sequence[Summary]) -> list[str]:
    """Joules and seconds per epoch."""
    finished = [summary for summary in summaries if summary["status"] == "finished"]
    if not finished:
        return [str(summaries[-1]["status"]) if summaries else NOTHING, NOTHING]
    return [_median(finished, "joules_per_epoch"), _median(finished, "seconds_per_epoch")]


def _median(summaries: Sequence[Summary], key: str) -> str:
    values = [summary[key] for summary in summaries]
    if None in values:
        return NOTHING
    median = statistics.median(values)
    return joules(median) if key == "joules_per_epoch" else f"{median:#.3g}"


def _remarks(summaries: Sequence[Summary]) -> list[str]:
    said = ["Joules of the whole machine and seconds, per epoch."]
    if any(summary["simulated"] for summary in summaries):
        said.append(
            "Simulated: seconds from SimGrid, joules from a platform's assumed watts; no machine was measured."
        )
    finished = [summary for summary in summaries if summary["status"] == "finished"]
    disturbed = sum(summary.get("disturbed") is True for summary in finished)
    if disturbed:
        said.append(f"{disturbed} of {len(finished)} runs were disturbed by other work on the machine.")
    runs = [_run(summary, number) for number, summary in enumerate(finished)]
    counts = [run[:-1] for run in dict.fromkeys(runs)]
    most = max((counts.count(key) for key in counts), default=0)
    if most > 1:
        said.append(f"Medians of up to {most} runs.")
    if len(set(runs)) < len(runs):
        said.append(
            "A simulation that was repeated has the same digits: it counts as one run and has no spread."
        )
    return said


def _run(summary: Summary, number: int) -> tuple[Any, ...]:
    """What tells a finished run from others: a simulation's repeat is the same run once more."""
    own = (summary["seconds_per_epoch"], summary["joules_per_epoch"]) if summary["simulated"] else number
    return (*_column(summary), summary["scheduler"], own)


def noise_remarks(folder: Path, summaries: Sequence[Summary], file: Path | None = None) -> list[str]:
    """The noise floor of the machine that measured these runs, where an A/A experiment found it.

    `file` is where floors are kept, this machine's by default. Raises NoiseError where it holds something else.
    """
    measured = [s for s in summaries if s["status"] == "finished" and s["simulated"] is False]
    if not measured:
        return []
    newest = max(folder.rglob(records.ENVIRONMENT_NAME), key=lambda path: path.parent.name)
    machine = noise.machine_of(records.read_json(newest))
    found = noise.closest(noise.read(file or noise.default_path()), machine, measured[-1]["model"])
    counts = Counter((*_column(summary), summary["scheduler"]) for summary in measured)
    return [] if found is None else [noise.words(found, min(counts.values()))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.table", description=__doc__)
    parser.add_argument("runs", type=Path, help="a folder of runs, such as runs/policies_on_nodes")
    asked = parser.parse_args(arguments)
    try:
        summaries = read_summaries(asked.runs)
        print(markdown(summaries, noise_remarks(asked.runs, summaries)))
    except (RunsError, noise.NoiseError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
