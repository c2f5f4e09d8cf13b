"""The command, with stand-ins for what it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import records, run
from experiments.summary import summarise
from experiments.tables import read_table
from tests.experiments.conftest import CHOICES, configuration, is_alive, stand_in, wait_for, when

RUN = "import sys; from experiments import run; {patch}; sys.exit(run.main())"


def command(
    arguments: list[str], environment: dict[str, str], folder: Path, way: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m experiments.run` from a folder; with `way`, a stand-in takes the trial's place."""
    patch = "pass" if way is None else f"run.TRIAL_COMMAND = {stand_in(way, folder)[:-1]!r}"
    return subprocess.run(
        [sys.executable, "-c", RUN.format(patch=patch), *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def runs(output: Path) -> list[Path]:
    return sorted((output / "trials").iterdir())


def summary(run_dir: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    return record


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["scheduler=foo"], "error: unknown scheduler 'foo'; there are: dm, dmda, "),
        (["model=foo"], "error: unknown model 'foo'; there are: "),
        (["dataset=foo"], "error: unknown dataset 'foo'; there are: "),
        (["experiment=foo"], "error: unknown experiment 'foo'; there are: "),
        (["-m", "scheduler=eager,foo"], "error: unknown scheduler 'foo'; there are: dm, dmda, "),
        (["foo=1"], "error: unknown key 'foo'; there are: scheduler, model, "),
        (
            ["scheduler=dm", "scheduler.foo=1"],
            "error: unknown key 'scheduler.foo'; scheduler=dm has: scheduler.name",
        ),
        (["scheduler=eager,dm"], "error: scheduler=eager,dm: several values need -m (one trial for each)"),
        (["epochs"], "error: 'epochs' is not KEY=VALUE: missing EQUAL at '<EOF>'"),
        (["seed=${nothing}"], "error: Interpolation key 'nothing' not found"),
        (["model=null"], "error: the configuration cannot be composed: "),
        (["tile=65"], "error: tile=65 is larger than batch_size=64: a mini-batch is cut into tiles"),
        (["workers=100000"], f"error: workers=100000: this machine has {len(os.sched_getaffinity(0))}"),
        (["learning_rate=-1"], "error: learning_rate=-1: must be a number above 0"),
        (["repeats=3"], "error: repeats=3: repeats need -m (one trial for each)"),
        (["resume=maybe"], "error: resume=maybe: must be true, false or failed"),
        (["guard=maybe"], "error: guard=maybe: must be label, refuse or off"),
        (["output=/proc/runs"], "error: output=/proc/runs: /proc/runs cannot be written "),
        (["-m", "seed=1,2", "output=/proc/runs"], "error: /proc/runs cannot be written "),
    ],
)
def test_a_bad_command_line_is_one_clear_line_and_starts_nothing(
    arguments: list[str], line: str, environment: dict[str, str], tmp_path: Path
) -> None:
    done = command(arguments, environment, tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert said.startswith(line)
    assert not (tmp_path / "runs" / "trials").exists()


def test_the_whole_traceback_is_there_for_who_asks(environment: dict[str, str], tmp_path: Path) -> None:
    done = command(["scheduler=foo"], environment | {"HYDRA_FULL_ERROR": "1"}, tmp_path)
    assert done.returncode != 0
    assert "Traceback (most recent call last)" in done.stderr
    assert "MissingConfigException" in done.stderr


def test_the_command_loads_nothing_heavy(environment: dict[str, str], tmp_path: Path) -> None:
    patch = (
        "import atexit; atexit.register(lambda: print('loaded:', sorted("
        "{'numpy', 'numba', 'pandas', 'pyarrow', 'dahl', 'energy', 'schedulers'} & set(sys.modules)))); "
        f"run.TRIAL_COMMAND = {stand_in('finish', tmp_path)[:-1]!r}"
    )
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(patch=patch)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_a_finished_trial_leaves_its_records(environment: dict[str, str], tmp_path: Path) -> None:
    done = command(["scheduler=eager", "epochs=1"], environment, tmp_path, "finish")
    assert done.returncode == 0, done.stderr
    (run_dir,) = runs(tmp_path / "runs")
    assert done.stdout.splitlines()[-1] == f"records: {run_dir}"
    found = summary(run_dir)
    assert len(found.pop("identity")) == 32
    assert found == {
        "record_version": 1,
        "status": "finished",
        "error": None,
        "label": None,
        "scheduler": "eager",
        "framework": "starpu",
        "workload": "cnn",
        "model": "basic_cnn",
        "dataset": "fashion_mnist",
        "platform": "host",
        "simulated": False,
        "tasks_recorded": True,
        "epochs": 1,
        "accuracy": 0.75,
        "loss": 0.5,
        "weights_sha256": "ab" * 32,
        "seconds_per_epoch": 2.0,
        "cpu_seconds_per_epoch": None,
        "images_per_second": 300.0,
        "joules_per_epoch": 30.0,
        "joules_per_epoch_net": 10.0,
        "transferred_bytes_per_epoch": None,
        "energy_trouble": None,
        "foreign_cores": None,
        "disturbed": None,
        "energy_quality": "estimated",
        "idle_drifted": None,
        "bound_ratio": None,
        "bound_ratio_controllable": None,
    }
    assert records.read_config(run_dir)["choices"]["scheduler"] == "eager"
    assert set(records.read_json(run_dir / "environment.json")) >= {
        "commit",
        "dirty",
        "cpu",
        "governor",
        "kernel",
    }


def test_the_terminal_shows_joules_with_their_quality(environment: dict[str, str], tmp_path: Path) -> None:
    done = command(["epochs=1"], environment, tmp_path, "finish")
    assert (
        "epoch 1/1: 30.0 J (estimated), 2.000 s, 300 images/s, loss 0.5000, test accuracy 0.7500"
        in done.stdout
    )
    assert "joules are estimated: real activity of the workers x assumed watts" in done.stdout


def test_a_failed_trial_shows_its_cause_and_the_end_of_its_log(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = command([], environment, tmp_path, "segfault")
    assert done.returncode == 1
    (run_dir,) = runs(tmp_path / "runs")
    assert "failed: killed by SIGSEGV" in done.stdout
    assert "  a line on stderr" in done.stdout
    assert f"log: {run_dir / 'trial.log'}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert (summary(run_dir)["status"], summary(run_dir)["error"]) == ("failed", "killed by SIGSEGV")


def test_an_expected_error_is_one_line_and_its_traceback_stays_in_the_log(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = command([], environment, tmp_path, "fail")
    assert done.returncode == 1
    (run_dir,) = runs(tmp_path / "runs")
    assert done.stdout.splitlines()[-3:] == [
        f"log: {run_dir / 'trial.log'}",
        "failed: train-images.gz: ends after 12 bytes",
        f"records: {run_dir}",
    ]
    assert "a line on stderr" not in done.stdout
    assert summary(run_dir)["error"] == "train-images.gz: ends after 12 bytes"


def test_a_sweep_goes_on_after_a_failed_trial_and_tells_at_the_end(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = command(["-m", "scheduler=eager,dmdas", "name=pair"], environment, tmp_path, "exit_3")
    assert done.returncode == 1
    found = list((tmp_path / "runs" / "pair").iterdir())
    assert sorted(summary(run_dir)["scheduler"] for run_dir in found) == ["dmdas", "eager"]
    assert {summary(run_dir)["status"] for run_dir in found} == {"failed"}
    assert "Traceback" not in done.stdout + done.stderr


def test_ctrl_c_ends_the_sweep_and_keeps_what_was_recorded(
    environment: dict[str, str], tmp_path: Path
) -> None:
    patch = f"run.TRIAL_COMMAND = {stand_in('write_tables', tmp_path)[:-1]!r}"
    with subprocess.Popen(
        [sys.executable, "-c", RUN.format(patch=patch), "-m", "seed=1,2"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        when(lambda: list(tmp_path.glob("runs/trials/*/hanging")), lambda: process.send_signal(2))
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: by SIGINT" in out
    assert "Traceback" not in out + err
    (run_dir,) = runs(tmp_path / "runs")
    assert summary(run_dir)["status"] == "interrupted"
    table, _ = read_table(run_dir, "tasks")
    assert table is not None
    assert table["task"].to_pylist() == list(range(table.num_rows))
    assert not list(run_dir.glob("*.arrows"))


def test_a_reader_that_goes_away_ends_the_trial_and_its_records_say_so(
    environment: dict[str, str], tmp_path: Path
) -> None:
    patch = f"run.TRIAL_COMMAND = {stand_in('flood', tmp_path)[:-1]!r}"
    with subprocess.Popen(
        [sys.executable, "-c", RUN.format(patch=patch)],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"eager_energy")
        assert process.stdout.readline().startswith(b"2 workers")
        process.stdout.close()
    assert process.returncode != 0
    (run_dir,) = runs(tmp_path / "runs")
    assert summary(run_dir)["status"] == "failed"
    assert not is_alive(int((run_dir / "pid").read_text()))


def test_a_run_that_goes_on_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    patch = f"run.TRIAL_COMMAND = {stand_in('hang', tmp_path)[:-1]!r}"
    with subprocess.Popen(
        [sys.executable, "-c", RUN.format(patch=patch)],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    ) as process:
        wait_for(lambda: list(tmp_path.glob("runs/trials/*/hanging")))
        assert summary(runs(tmp_path / "runs")[0])["status"] == "running"
        process.kill()


def test_a_trial_runs_one_blas_thread_and_never_uses_the_home_folder(tmp_path: Path) -> None:
    child = run.trial_environment(tmp_path)
    assert child["OPENBLAS_NUM_THREADS"] == child["OMP_NUM_THREADS"] == child["MKL_NUM_THREADS"] == "1"
    assert child["PYTHONUNBUFFERED"] == "1"
    for name in ("STARPU_HOME", "STARPU_PERF_MODEL_DIR"):
        assert Path(child[name]).is_relative_to(tmp_path)


def test_joules_that_an_epoch_lacks_are_none_in_the_summary() -> None:
    epochs = [
        {"images": 10, "seconds": 1.0, "gross_j": 5.0, "net_j": None, "quality": "measured"},
        {"images": 10, "seconds": 3.0, "gross_j": None, "net_j": None, "quality": "measured"},
    ]
    record = summarise(configuration(choices=CHOICES), epochs, status="finished")
    assert record["joules_per_epoch"] is None
    assert record["joules_per_epoch_net"] is None
    assert (record["seconds_per_epoch"], record["images_per_second"]) == (2.0, 5.0)


def test_joules_per_epoch_are_those_of_the_blocks_over_their_epochs() -> None:
    epochs = [{"epoch": epoch, "images": 10, "seconds": 1.0, "gross_j": None} for epoch in (1, 2, 3)]
    blocks = [
        {"epoch": 1, "last_epoch": 2, "gross_j": 8.0, "net_j": 3.0, "quality": "measured"},
        {"epoch": 3, "last_epoch": 3, "gross_j": 7.0, "net_j": 3.0, "quality": "estimated"},
    ]
    record = summarise(configuration(choices=CHOICES), epochs, blocks, status="finished")
    assert (record["joules_per_epoch"], record["joules_per_epoch_net"]) == (5.0, 2.0)
    assert record["energy_quality"] == "estimated"
    cut_short = summarise(configuration(choices=CHOICES), epochs, blocks[:1], status="failed")
    assert cut_short["joules_per_epoch"] is None


def test_a_summary_calls_its_joules_by_the_weakest_quality() -> None:
    epochs = [
        {"images": 10, "seconds": 1.0, "gross_j": 5.0, "quality": quality}
        for quality in ("measured", "estimated")
    ]
    assert (
        summarise(configuration(choices=CHOICES), epochs, status="finished")["energy_quality"] == "estimated"
    )
