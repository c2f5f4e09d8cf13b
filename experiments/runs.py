"""Runs as pandas frames: `Run.load(folder)` for one, `load_runs(glob)` for many; docs/records.md has the columns.

Nothing is left out in silence: what cannot be read is a row of `Runs.summary` whose `problem` says why.
"""

from __future__ import annotations

import glob as globbing
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import pyarrow as pa

from energy.stream import read_stream
from experiments import records
from experiments.run_files import NO_RUN, fits, read_config, read_scalars, read_summary
from experiments.schemas import (
    BREAKDOWN,
    DECISIONS,
    EPOCH_COLUMNS,
    GUARD,
    POWER,
    SUMMARY,
    TASKS,
    TRANSFERS,
    WINDOWS,
)
from experiments.tables import power_stream_path, read_table

SCHEMAS = {
    "epochs": pa.schema(EPOCH_COLUMNS),
    "windows": WINDOWS,
    "guard": GUARD,
    "transfers": TRANSFERS,
    "breakdown": BREAKDOWN,
    "power": POWER,
    "tasks": TASKS,
    "decisions": DECISIONS,
}
"""The tables that a run may have, with their documented columns."""

OWN_COLUMNS = pa.schema(
    [
        ("experiment", pa.string()),
        ("problem", pa.string()),
        ("seed", pa.int64()),
        ("repeat", pa.int64()),
        ("batch_size", pa.int64()),
        ("tile", pa.string()),
        ("fuse", pa.string()),
        ("workers", pa.int64()),
    ]
)
"""What `Runs.summary` has besides the fields of `summary.json`; all but the first two come from `config.yaml`."""

_NULLABLE = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
}
"""Whole numbers and truths that may be unknown stay what they are; without these pandas makes them floats."""

_LONG = ("tasks", "decisions")  # of many rows and no unknown whole numbers: plain NumPy columns
_READERS = 4


class RunsError(Exception):
    """A folder holds no record of a run, or one that cannot be shown."""


class NoTableError(RunsError):
    """A run has no such table; the message says what writes one."""


@final
@dataclass(frozen=True)
class Run:
    """The records of one run; tables are read when they are first asked for, and kept.

    `summary` has every column of `experiments.schemas.SUMMARY`, None for what is unknown, and what else the file holds.
    """

    path: Path
    summary: Mapping[str, Any]

    @staticmethod
    def load(path: str | Path) -> Run:
        """The run in a folder. Raises RunsError where it is none, is damaged or of another version of the records."""
        run, _, problem = _read(Path(path))
        if problem is not None:
            raise RunsError(f"{path}: {problem}")
        return run

    @property
    def name(self) -> str:
        """The folder's name: time, scheduler, model and a short id."""
        return self.path.name

    def has(self, table: str) -> bool:
        """Whether the run left this table."""
        endings = (".parquet", ".stream") if table == "power" else (".parquet", ".arrows")
        return any((self.path / f"{table}{ending}").exists() for ending in endings)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration. Raises RunsError."""
        config, problem = read_config(self.path)
        if problem is not None:
            raise RunsError(f"{self.path}: {problem}")
        return config

    @cached_property
    def environment(self) -> dict[str, Any]:
        """`environment.json`. Raises RunsError."""
        try:
            return records.read_json(self.path / records.ENVIRONMENT_NAME)
        except (OSError, ValueError) as error:
            raise RunsError(f"{self.path}: {records.ENVIRONMENT_NAME} cannot be read ({error})") from error

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row per epoch. Raises NoTableError, as all of these do."""
        return self._frame("epochs")

    @cached_property
    def windows(self) -> pd.DataFrame:
        """A row per measured window and channel."""
        return self._frame("windows")

    @cached_property
    def guard(self) -> pd.DataFrame:
        """A row per window: what else ran on the machine."""
        return self._frame("guard")

    @cached_property
    def breakdown(self) -> pd.DataFrame:
        """A row per window with tasks: what its joules went to."""
        return self._frame("breakdown")

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """A row per task."""
        return self._frame("tasks")

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """A row per candidate of each decision."""
        return self._frame("decisions")

    @cached_property
    def power(self) -> pd.DataFrame:
        """A row per reading of a channel, with `time_s` of its end on StarPU's clock (NaN without `windows`)."""
        if not self.has("power"):
            raise NoTableError(f"{self.path} has no power.parquet: the trial ended before its first reading")
        if power_stream_path(self.path).exists():
            frame = read_stream(power_stream_path(self.path))
        else:
            table, _ = read_table(self.path, "power")
            assert table is not None
            frame = table.to_pandas()
        zero_ns = self._zero_ns()
        frame["time_s"] = np.nan if zero_ns is None else (frame["t_mono_ns"] - zero_ns) * 1e-9
        return frame

    def _zero_ns(self) -> int | None:
        """When StarPU's clock showed 0, on the power trace's; a simulation's power trace has the simulated clock."""
        if self.summary["simulated"]:
            return 0
        if not self.has("windows") or self.windows.empty:
            return None
        first = self.windows.iloc[0]
        return int(first["start_t_mono_ns"]) - round(float(first["start_s"]) * 1e9)

    def _frame(self, name: str) -> pd.DataFrame:
        table = self._table(name)
        if table is None:
            raise NoTableError(f"{self.path} has no {name}.parquet: {_WRITTEN[name]}")
        return _to_pandas(table, name)

    def _table(self, name: str) -> pa.Table | None:
        """The table as Arrow has it; None where the run has none."""
        try:
            table = read_table(self.path, name)[0]
        except (pa.ArrowException, OSError) as error:
            raise RunsError(f"{self.path}: {name}.parquet cannot be read ({error})") from error
        return None if table is None else _with_every_column(table, name)


_WRITTEN = {
    "epochs": "the trial ended before its first epoch did",
    "windows": "the trial ended before its first window did",
    "guard": "it needs guard=label, and a simulation has none",
    "breakdown": "it needs a power model and tasks",
    "tasks": "run it with trace=true (a PyTorch twin has no tasks)",
    "decisions": "run it with scheduler.explain=true",
}


@final
class Runs(Sequence[Run]):
    """Many runs, oldest first, and their tables one below the other with the run in the column `run`.

    Only those without a problem are members and have rows in the tables; `summary` has all.
    """

    def __init__(self, found: Sequence[tuple[Run, Mapping[str, Any], str | None]]) -> None:
        self._found = list(found)
        self._runs = [run for run, _, problem in self._found if problem is None]

    def __getitem__(self, index: Any) -> Any:
        """A run by its place; a slice is a list of runs."""
        return self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row per folder, whatever became of its trial; the index `run` is the folder."""
        known = pa.unify_schemas([OWN_COLUMNS, SUMMARY])
        rows = [{**own, **run.summary, "problem": problem} for run, own, problem in self._found]
        frame = pa.Table.from_pylist(rows, schema=known).to_pandas(types_mapper=_NULLABLE.get)
        for name in dict.fromkeys(key for row in rows for key in row if key not in known.names):
            frame[name] = [row.get(name) for row in rows]
        frame.index = pd.Index([str(run.path) for run, *_ in self._found], name="run")
        return frame

    @cached_property
    def problems(self) -> pd.Series:
        """Why folders are left out of the tables, by folder."""
        return self.summary["problem"].dropna()

    @cached_property
    def configs(self) -> pd.DataFrame:
        """A row per run: its configuration, nested keys joined by dots; the index `run` is the folder."""
        frame = pd.DataFrame([flat(run.config) for run in self._runs])
        frame.index = pd.Index([str(run.path) for run in self._runs], name="run")
        return frame

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row per epoch of all runs."""
        return self.table("epochs")

    @cached_property
    def windows(self) -> pd.DataFrame:
        """A row per window and channel of all runs."""
        return self.table("windows")

    @cached_property
    def power(self) -> pd.DataFrame:
        """A row per reading of all runs."""
        frames = {str(run.path): run.power for run in self._runs if run.has("power")}
        if not frames:
            raise NoTableError(f"none of {len(self)} runs has a power trace")
        return pd.concat(frames, names=["run"]).reset_index(level="run").reset_index(drop=True)

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """A row per task of all runs: 100 bytes each, so that `runs[i].tasks` is wiser for long ones."""
        return self.table("tasks")

    def table(self, name: str) -> pd.DataFrame:
        """The tables of this name of all runs that have one. Raises NoTableError where none has."""
        with ThreadPoolExecutor(_READERS) as pool:
            read = list(pool.map(lambda run: run._table(name), self._runs))
        have = [(number, table) for number, table in enumerate(read) if table is not None]
        if not have:
            raise NoTableError(f"none of {len(self)} runs has {name}.parquet: {_WRITTEN[name]}")
        whole = pa.concat_tables([table for _, table in have], promote_options="permissive")
        frame = _to_pandas(whole, name)
        codes = np.repeat([number for number, _ in have], [table.num_rows for _, table in have])
        folders = pd.Index([str(run.path) for run in self._runs])
        frame.insert(0, "run", pd.Series(pd.Categorical.from_codes(codes, folders)))
        return frame


def load_runs(*patterns: str | Path) -> Runs:
    """The runs in the folders that match: runs themselves, or folders with runs anywhere beneath.

    Raises RunsError where a pattern matches nothing, and where there is no run at all.
    """
    if not patterns:
        raise RunsError("no folder was named; name one with runs in it, such as runs")
    folders = list(dict.fromkeys(folder for pattern in patterns for folder in _folders(pattern)))
    found = [_read(folder) for folder in folders]
    if all(problem == NO_RUN for *_, problem in found):
        raise RunsError(
            f"{', '.join(map(str, patterns))}: no run in there; `output=` and `name=` say where runs go"
        )
    return Runs(sorted(found, key=lambda pair: (pair[0].path.name, str(pair[0].path))))


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one level, keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _folders(pattern: str | Path) -> list[Path]:
    """The folders of runs that a pattern names; one without any is in it itself, to be told of."""
    matches = sorted(globbing.glob(os.path.expanduser(str(pattern))))
    folders = [Path(match) for match in matches if os.path.isdir(match)]
    if not folders:
        what = "a file, no folder" if matches else "there is no such folder"
        raise RunsError(f"{pattern}: {what}")
    return [run for folder in folders for run in _beneath(folder) or [folder]]


def _beneath(folder: Path) -> list[Path]:
    """This folder or those beneath that hold records of a run; what is inside of a run is not searched."""
    with os.scandir(folder) as entries:
        names = {entry.name: entry.is_dir() for entry in entries}
    if records.SUMMARY_NAME in names or records.CONFIG_NAME in names:
        return [folder]
    inner = sorted(name for name, is_folder in names.items() if is_folder and not name.startswith("."))
    return [run for name in inner for run in _beneath(folder / name)]


def _read(folder: Path) -> tuple[Run, dict[str, Any], str | None]:
    """A run as far as it can be read, the values of `OWN_COLUMNS`, and what is wrong with it."""
    summary, problem = read_summary(folder)
    scalars, missing = read_scalars(folder, OWN_COLUMNS.names) if problem != NO_RUN else ({}, None)
    earlier: dict[str, Any] = {}
    if problem is None and missing is None and not {"platform", "workload"} <= summary.keys():
        # Records of the first days name these in the configuration alone.
        config, missing = read_config(folder)
        choices = config.get("choices") or {}
        earlier = {"platform": choices.get("platform"), "workload": choices.get("workload", "cnn")}
    unknown: dict[str, Any] = dict.fromkeys(SUMMARY.names)
    run = Run(folder, {**unknown, **earlier, **summary})
    return run, _own(folder, scalars), problem or missing


def _own(folder: Path, scalars: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `OWN_COLUMNS`, but for the problem."""
    row: dict[str, Any] = {"experiment": folder.absolute().parent.name}
    for field in list(OWN_COLUMNS)[2:]:
        value = scalars.get(field.name)
        if value is not None and field.type == pa.string():
            value = value if isinstance(value, str) else json.dumps(value)
        row[field.name] = value if fits(value, field.type) else None
    return row


def _with_every_column(table: pa.Table, name: str) -> pa.Table:
    """The table with nulls in documented columns that an earlier state of the project did not write."""
    there_are = set(table.column_names)
    for field in SCHEMAS[name]:
        if field.name not in there_are:
            # Before there were blocks, each epoch was one.
            earlier = table["epoch"] if field.name == "last_epoch" else pa.nulls(len(table), field.type)
            table = table.append_column(field, earlier)
    return table


def _to_pandas(table: pa.Table, name: str) -> pd.DataFrame:
    return table.to_pandas(types_mapper=None if name in _LONG else _NULLABLE.get)
