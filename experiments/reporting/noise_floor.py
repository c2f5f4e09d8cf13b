"""The least effect that a machine can show: what an A/A experiment has left next to the runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments import records
from experiments.runs import RunsError

FILE_NAME = "noise_floor.json"


def read(run_dirs: Iterable[Path]) -> list[dict[str, Any]]:
    """The noise floors that lie in the folders around these runs, or in those above, nearest first.

    Empty where no A/A experiment was run. Raises RunsError for a file that cannot be read.
    """
    folders = dict.fromkeys(above for run_dir in run_dirs for above in list(run_dir.absolute().parents)[:2])
    found = []
    for folder in folders:
        path = folder / FILE_NAME
        if path.exists():
            try:
                found.append(records.read_json(path))
            except (OSError, ValueError) as error:
                raise RunsError(f"{path} cannot be read ({error}); move it away") from error
    return found
