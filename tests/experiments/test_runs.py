"""Runs as frames."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import Run, load_runs, records
from experiments.runs import OWN_COLUMNS, NoTableError, RunsError
from experiments.schemas import BREAKDOWN, DECISIONS, EPOCH_COLUMNS, POWER, SUMMARY, TASKS, WINDOWS
from experiments.summary import summarise
from experiments.tables import TableStream
from experiments.validation import CHECKOUT
from tests.experiments.conftest import CHOICES, configuration
from tests.experiments.synthetic_runs import CHANNELS, write_run

PAGE = (CHECKOUT / "docs" / "records.md").read_text()


def test_a_run_has_its_summary_its_configuration_and_its_tables(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path / "trials", "lws", seed=7, seconds=(1.0, 3.0), joules=(10.0, 50.0)))
    assert run.summary["scheduler"] == "lws"
    assert run.summary["joules_per_epoch"] == 30.0
    assert run.config["seed"] == 7
    assert run.environment["starpu"]["workers"] == ["CPU 0", "CPU 1"]
    assert run.epochs["gross_j"].tolist() == [10.0, 50.0]
    assert run.windows["window"].value_counts().to_dict() == {"epoch": 4, "run": 2}
    assert run.tasks["worker"].tolist() == [0, 1, 0, 1]
    assert run.tasks["end_s"].iloc[-1] == 5.0


@pytest.mark.parametrize("simulated", [False, True])
def test_power_is_tied_to_the_clock_of_the_tasks(tmp_path: Path, simulated: bool) -> None:
    run = Run.load(
        write_run(tmp_path, seconds=(2.0,), joules=(60.0,), accuracies=(0.5,), simulated=simulated)
    )
    base = run.power[run.power["channel"] == CHANNELS[0]]
    assert base["time_s"].to_numpy() == pytest.approx(np.linspace(1.2, 3.0, 10))
    assert base["joules"].sum() == pytest.approx(20.0)
    assert run.power["raw"].isna().all()


def test_a_table_that_a_run_did_not_write_is_an_error_that_says_what_writes_it(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path, tasks=False, power=False))
    assert not run.has("tasks")
    assert run.has("epochs")
    with pytest.raises(NoTableError, match=r"no tasks\.parquet: run it with trace=true"):
        _ = run.tasks
    with pytest.raises(NoTableError, match=r"no power\.parquet"):
        _ = run.power
    with pytest.raises(NoTableError, match=r"none of 1 runs has decisions\.parquet: .*explain=true"):
        load_runs(tmp_path).table("decisions")


def test_many_runs_are_one_frame_and_failed_ones_are_rows_of_it(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "eager", seed=1)
    write_run(tmp_path / "a", "dmda", seed=2, status="failed", error="killed by SIGSEGV", seconds=(), joules=(),
              accuracies=(), tasks=False, power=False)  # fmt: skip
    write_run(
        tmp_path / "b", "lws", seed=3, status="running", seconds=(1.0,), joules=(5.0,), accuracies=(None,)
    )
    runs = load_runs(tmp_path)
    assert len(runs) == 3
    assert runs.problems.empty
    frame = runs.summary
    assert frame["status"].tolist() == ["finished", "running", "failed"]
    assert frame["experiment"].tolist() == ["a", "b", "a"]
    assert frame["seed"].tolist() == [1, 3, 2]
    assert frame["error"].tolist()[-1] == "killed by SIGSEGV"
    assert np.isnan(frame["joules_per_epoch"].iloc[-1]), "not recorded, so no number"
    assert frame["epochs"].tolist() == [2, 1, 0]
    assert runs.epochs.groupby("run", observed=True).size().tolist() == [2, 1]
    assert runs.tasks["run"].nunique() == 2
    assert runs.power.groupby("run")["joules"].sum().tolist() == pytest.approx([120.0, 5.0])


def test_the_columns_are_the_documented_ones_whatever_the_runs_hold(tmp_path: Path) -> None:
    write_run(tmp_path, changes={"simulated": None, "accuracy": None, "guard": "disturbed"})
    frame = load_runs(tmp_path).summary
    assert list(frame.columns) == [*OWN_COLUMNS.names, *SUMMARY.names, "guard"]
    assert frame["workers"].dtype == pd.Int64Dtype()
    assert frame["simulated"].dtype == pd.BooleanDtype()
    assert frame["accuracy"].dtype == np.float64
    assert frame["guard"].tolist() == ["disturbed"]


def test_configurations_are_columns_with_dots(tmp_path: Path) -> None:
    write_run(tmp_path, "eager")
    configs = load_runs(tmp_path).configs
    assert configs["scheduler.name"].tolist() == ["eager"]
    assert configs["choices.platform"].tolist() == ["host"]
    assert configs["estimates.noise"].tolist() == [0.0]


def test_a_run_that_still_runs_can_be_read(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, status="running", tasks=False)
    stream = TableStream(run_dir, "tasks", TASKS)
    stream.append_row(dict.fromkeys(TASKS.names) | {"task": 4, "codelet": "relu"})
    run = Run.load(run_dir)
    assert run.has("tasks")
    assert run.tasks["task"].tolist() == [4]
    stream.close()


def test_folders_that_are_no_runs_are_told_of_one_by_one(tmp_path: Path) -> None:
    good = write_run(tmp_path)
    (tmp_path / "holiday").mkdir()
    (tmp_path / "never_started").mkdir()
    (tmp_path / "never_started" / "config.yaml").write_text("seed: 0\n")
    for name, text in (("torn", '{"record_v'), ("strange", '{"record_version": 1, "epochs": "five"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("seed: 0\n")
        (tmp_path / name / "summary.json").write_text(text)
    (tmp_path / "no_config").mkdir()
    (tmp_path / "no_config" / "summary.json").write_bytes((good / "summary.json").read_bytes())
    runs = load_runs(tmp_path / "*")
    problems = {Path(str(folder)).name: text for folder, text in runs.problems.items()}
    assert [run.path for run in runs] == [good]
    assert problems["holiday"] == "holds no summary.json: no folder of a run"
    assert problems["never_started"] == "holds no summary.json: its trial was never started"
    assert problems["torn"].startswith("summary.json cannot be read (")
    assert problems["strange"] == "summary.json has a strange epochs"
    assert problems["no_config"].startswith("config.yaml cannot be read (")
    assert len(runs.summary) == 6
    for name, text in problems.items():
        with pytest.raises(RunsError, match=re.escape(f"{tmp_path / name}: {text}")):
            Run.load(tmp_path / name)


@pytest.mark.parametrize(
    ("version", "way_out"), [(0, "run it again"), (None, "run it again"), (99, "with a newer version")]
)
def test_another_version_of_the_records_is_told_of_with_the_way_out(
    tmp_path: Path, version: int | None, way_out: str
) -> None:
    write_run(tmp_path, "eager", changes={"record_version": version})
    write_run(tmp_path, "lws")
    runs = load_runs(tmp_path)
    assert [run.summary["scheduler"] for run in runs] == ["lws"]
    (problem,) = runs.problems
    assert f"has version {version} of the records, this one reads {records.RECORD_VERSION}" in problem
    assert way_out in problem
    assert runs.summary["scheduler"].tolist() == ["eager", "lws"]


def test_the_first_records_have_their_platform_in_the_configuration(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, platform="cpu8_gpu2")
    summary = records.read_json(run_dir / "summary.json")
    for name in ("platform", "workload", "idle_drifted", "bound_ratio"):
        del summary[name]
    records.write_json(run_dir / "summary.json", summary)
    run = Run.load(run_dir)
    assert (run.summary["platform"], run.summary["workload"]) == ("cpu8_gpu2", "cnn")
    assert run.summary["bound_ratio"] is None


@pytest.mark.parametrize("pattern", ["nowhere", "empty", "file", "empty/*"])
def test_a_pattern_without_any_run_is_an_error(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(RunsError, match=re.escape(str(tmp_path / pattern))):
        load_runs(tmp_path / pattern)


def test_what_lies_inside_of_a_run_and_in_hidden_folders_is_no_run(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path)
    for folder in (run_dir / "calibration", tmp_path / ".sweeps" / "x"):
        folder.mkdir(parents=True)
        (folder / "summary.json").write_bytes((run_dir / "summary.json").read_bytes())
    assert [run.path for run in load_runs(tmp_path)] == [run_dir]
    assert load_runs(tmp_path, str(run_dir)).summary.index.tolist() == [str(run_dir)]


def test_the_package_is_imported_without_what_reads_records(environment: dict[str, str]) -> None:
    code = "import sys, experiments.run; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_what_the_page_shows_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    write_run(tmp_path / "runs" / "schedulers_on_host", "lws", joules=(12.0, 13.0))
    (code,) = re.findall(r"^```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^lws +12\.5$", done.stdout, re.MULTILINE)


def documented(section: str) -> list[tuple[str, str]]:
    """Name and unit of each column in the first table of a section."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    table = text.split("| column | unit | is |\n|---|---|---|\n")[1].split("\n\n")[0]
    return [
        (name, unit.strip()) for name, unit in re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, re.MULTILINE)
    ]


TABLES = {
    "`summary.json`": SUMMARY.names,
    "`epochs`": [name for name, _ in EPOCH_COLUMNS],
    "`windows`": WINDOWS.names,
    "`breakdown`": BREAKDOWN.names,
    "`power`": POWER.names,
    "`tasks`": TASKS.names,
    "`decisions`": DECISIONS.names,
}
UNITS = {"_s": "s", "_j": "J", "_ns": "ns", "seconds": "s", "joules": "J", "watts": "W"}


@pytest.mark.parametrize("section", TABLES)
def test_every_column_is_documented_with_the_unit_that_its_name_says(section: str) -> None:
    found = documented(section)
    assert [name for name, _ in found] == TABLES[section]
    for name, unit in found:
        expected = [text for end, text in UNITS.items() if name.endswith(end)]
        assert not expected or unit == expected[0], name


def test_columns_from_the_configuration_are_documented() -> None:
    after = PAGE.split("from the folder and `config.yaml` besides:\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", after, re.MULTILINE) == OWN_COLUMNS.names


def test_the_summary_is_what_the_columns_say() -> None:
    assert list(summarise(configuration(choices=CHOICES), [], status="running")) == SUMMARY.names


def test_a_power_trace_has_the_documented_columns(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path))
    assert list(run.power.columns) == [*POWER.names, "time_s"]


def test_a_summary_of_numbers_only_is_read_as_it_stands(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, accuracies=(1, 1))
    assert json.loads((run_dir / "summary.json").read_text())["accuracy"] == 1
    assert load_runs(tmp_path).summary["accuracy"].tolist() == [1.0]
