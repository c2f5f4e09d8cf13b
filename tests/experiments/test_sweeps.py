"""Sweeps: order, repeats, resumption after a kill, who runs beside whom."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from experiments import Run, load_runs, records
from experiments.identity import identity
from experiments.machine_lock import MachineBusyError, lock_path, measuring
from experiments.tables import TABLES, read_table
from hydra_plugins.dahl_sweeps.interleaved_sweeper import interleave
from tests.experiments.conftest import CHOICES, configuration, is_alive, stand_in, wait_for

RUN = "import sys; from experiments import run; run.TRIAL_COMMAND = {command!r}; sys.exit(run.main())"
Summary = dict[str, Any]


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAHL_LOCK", str(tmp_path / "lock"))


def start(way: str, arguments: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    """`python -m experiments.run -m` from a folder, with a stand-in for every trial."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN.format(command=stand_in(way, folder)[:-1]), "-m", *arguments],
        env=environment | {"DAHL_LOCK": str(folder / "lock")},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sweep(
    way: str, arguments: list[str], environment: dict[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    process = start(way, arguments, environment, folder)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def summaries(folder: Path) -> dict[Path, Summary]:
    """Those of all runs that have one, each read whole."""
    found = sorted((folder / "runs/trials").glob("*/summary.json"), key=lambda path: path.stat().st_mtime_ns)
    return {path.parent: json.loads(path.read_text()) for path in found}


def test_each_round_of_repeats_has_every_configuration_once_in_an_order_of_its_own() -> None:
    choices = [(f"seed={seed}",) for seed in range(8)]
    jobs = interleave(choices, 3, order_seed=5)
    rounds = [jobs[first : first + 8] for first in (0, 8, 16)]
    for number, jobs_of_round in enumerate(rounds, start=1):
        assert sorted(job[:-1] for job in jobs_of_round) == choices
        assert {job[-1] for job in jobs_of_round} == {f"repeat={number}"}
    assert len({tuple(job[0] for job in jobs_of_round) for jobs_of_round in rounds}) == 3
    assert interleave(choices, 3, order_seed=5) == jobs
    assert interleave(choices, 1, order_seed=None) == choices


def test_what_tells_trials_apart_is_their_configuration_and_not_where_they_are_recorded() -> None:
    base = identity(configuration(choices=CHOICES))
    for same in ({"output": "/elsewhere"}, {"resume": True}, {"timeout_s": 5}, {"sweep": "/x"}):
        assert identity(configuration(choices=CHOICES, **same)) == base
    others = [{"seed": 1}, {"repeat": 2}, {"label": "b"}, {"workers": 1}, {"trace": False}]
    assert len({base, *(identity(configuration(choices=CHOICES, **other)) for other in others)}) == 6


def test_a_killed_sweep_with_crashes_resumes_to_one_outcome_for_each_trial(
    environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["seed=range(6)", "order_seed=null"]
    (tmp_path / "hold").touch()
    process = start(
        "by_seed", [arguments[0].replace("range(6)", "1,2,3,4,5,0"), arguments[1]], environment, tmp_path
    )
    wait_for(lambda: list(tmp_path.glob("runs/trials/*/hanging")), limit_s=60)
    (held,) = tmp_path.glob("runs/trials/*/hanging")
    process.kill()
    process.communicate()
    wait_for(lambda: not is_alive(int((held.parent / "pid").read_text())))
    assert Counter(found["status"] for found in summaries(tmp_path).values()) == {"failed": 3, "running": 1}

    (tmp_path / "hold").unlink()
    done = sweep("by_seed", [*arguments, "resume=true"], environment, tmp_path)
    assert done.returncode == 1, "three of its trials have failed"
    found = summaries(tmp_path)
    outcomes = [one for one in found.values() if one["status"] in ("finished", "failed")]
    assert len(outcomes) == 6
    assert len({one["identity"] for one in outcomes}) == 6, "none was run twice"
    assert sorted(str(one["error"]).split(" (")[0] for one in outcomes if one["status"] == "failed") == [
        "killed by SIGKILL",
        "killed by SIGSEGV",
        "train-images.gz: ends after 12 bytes",
    ]
    cut = found[held.parent]
    assert (cut["status"], cut["error"].split(";")[0]) == (
        "interrupted",
        "cut off: the process that ran it was killed",
    )
    for run_dir in found:
        assert not list(run_dir.glob("*.arrows"))
        assert not list(run_dir.glob(".*.tmp"))
        assert not (run_dir / "supervisor.lock").exists()
        assert "a line on stderr" in (run_dir / "trial.log").read_text()
        for table in TABLES:
            read_table(run_dir, table)
        assert identity(records.read_config(run_dir)) == found[run_dir]["identity"]

    again = sweep("by_seed", [*arguments, "resume=true"], environment, tmp_path)
    assert again.returncode == 1
    assert again.stdout.count("already: ") == 6
    assert summaries(tmp_path) == found

    retried = sweep("finish", [*arguments, "resume=failed"], environment, tmp_path)
    assert retried.returncode == 0
    assert retried.stdout.count("finished already: ") == 3
    assert Counter(one["status"] for one in summaries(tmp_path).values()) == {
        "finished": 6,
        "failed": 3,
        "interrupted": 1,
    }


def test_a_trial_that_another_command_runs_is_not_started_again(
    environment: dict[str, str], tmp_path: Path
) -> None:
    first = start("hang", ["seed=0"], environment, tmp_path)
    wait_for(lambda: list(tmp_path.glob("runs/trials/*/hanging")), limit_s=60)
    second = sweep("finish", ["seed=0", "resume=true", "allow_concurrent=true"], environment, tmp_path)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert second.returncode == 0
    assert "running already: " in second.stdout
    assert [one["status"] for one in summaries(tmp_path).values()] == ["interrupted"]


def test_a_second_measured_run_is_refused_with_the_first_ones_process_and_folder(
    environment: dict[str, str], tmp_path: Path
) -> None:
    first = start("hang", ["seed=0"], environment, tmp_path)
    wait_for(lambda: list(tmp_path.glob("runs/trials/*/hanging")), limit_s=60)
    (hanging,) = tmp_path.glob("runs/trials/*/hanging")
    second = sweep("finish", ["seed=1"], environment, tmp_path)
    assert second.returncode == 2
    assert second.stderr == (
        f"error: process {first.pid} (records: {hanging.parent}) measures on this machine, and two at once would "
        "count each other's joules: wait for it, or allow_concurrent=true\n"
    )
    assert list(summaries(tmp_path)) == [hanging.parent]
    allowed = sweep("finish", ["seed=1", "allow_concurrent=true"], environment, tmp_path)
    simulated = sweep("finish", ["seed=2", "platform=cpu8_gpu2"], environment, tmp_path)
    first.kill()
    first.communicate()
    assert (allowed.returncode, simulated.returncode) == (0, 0)
    after_a_kill = sweep("finish", ["seed=1"], environment, tmp_path)
    assert after_a_kill.returncode == 0, after_a_kill.stderr


def test_the_lock_is_free_again_after_its_holder_and_taken_once_by_a_process(tmp_path: Path) -> None:
    hold = "from experiments.machine_lock import measuring; from pathlib import Path\nwith measuring(Path('/x')): pass"
    with measuring(tmp_path), measuring(tmp_path / "trial"):
        assert json.loads(lock_path().read_text()) == {"pid": os.getpid(), "folder": str(tmp_path / "trial")}
        refused = subprocess.run([sys.executable, "-c", hold], capture_output=True, text=True)
        assert MachineBusyError.__name__ in refused.stderr
    assert subprocess.run([sys.executable, "-c", hold]).returncode == 0


def test_a_calibration_is_refused_while_a_run_measures(environment: dict[str, str], tmp_path: Path) -> None:
    with measuring(tmp_path / "a_run"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "experiments.calibrate",
                "dataset=synthetic",
                f"file={tmp_path}/file.json",
            ],
            env=environment | {"DAHL_LOCK": str(tmp_path / "lock")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: process {os.getpid()} (records: {tmp_path}/a_run) measures on this"
    )


@pytest.mark.parametrize("platform", ["host", "cpu8_gpu2"])
def test_simulations_run_side_by_side_and_measured_trials_one_after_the_other(
    environment: dict[str, str], tmp_path: Path, platform: str
) -> None:
    done = sweep("finish_slowly", ["seed=range(3)", f"platform={platform}", "jobs=3"], environment, tmp_path)
    assert done.returncode == 0, done.stderr
    spans = sorted(
        tuple(float(text) for text in path.read_text().split()) for path in tmp_path.glob("runs/trials/*/ran")
    )
    overlap = any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))
    assert len(spans) == 3
    assert overlap == (platform != "host")
    titles = [line for line in done.stdout.splitlines() if line.startswith("eager_energy")]
    ends = [line for line in done.stdout.splitlines() if line.startswith("records: ")]
    assert (len(titles), len(ends)) == (3, 3)


def test_ctrl_c_ends_the_simulations_that_run_side_by_side(
    environment: dict[str, str], tmp_path: Path
) -> None:
    process = start("stop_politely", ["seed=range(6)", "platform=cpu8_gpu2", "jobs=2"], environment, tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("runs/trials/*/hanging"))) == 2, limit_s=60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    found = summaries(tmp_path)
    assert [one["status"] for one in found.values()] == ["interrupted", "interrupted"]
    assert all((run_dir / "polite").exists() for run_dir in found)


def test_a_trial_that_takes_too_long_has_failed(environment: dict[str, str], tmp_path: Path) -> None:
    done = sweep(
        "stop_politely", ["seed=0,1", "timeout_s=1", "jobs=2", "platform=cpu8_gpu2"], environment, tmp_path
    )
    assert done.returncode == 1
    assert {(one["status"], one["error"]) for one in summaries(tmp_path).values()} == {
        ("failed", "took longer than timeout_s=1")
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_trials_of_which_three_crash_in_a_sweep_that_is_killed_and_resumed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Real trainings: a wild pointer in a kernel, a loss that is no number, kill -9, and kill -9 of the sweep."""
    crashing = (sys.executable, str(Path(__file__).with_name("crashing_trial.py")))
    small = (
        "scheduler=lws",
        "fuse=false",
        "dataset=synthetic",
        "dataset.train_size=320",
        "dataset.test_size=64",
    )
    command = [sys.executable, "-c", RUN.format(command=crashing), "-m", *small, "epochs=2", "seed=range(20)"]
    command += ["order_seed=1", f"output={tmp_path}/runs"]
    where = environment | {"DAHL_LOCK": str(tmp_path / "lock")}
    first = subprocess.Popen(command, env=where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ended() -> int:
        return sum(one["status"] in ("finished", "failed") for one in summaries(tmp_path).values())

    wait_for(lambda: ended() >= 9, limit_s=400)
    first.kill()
    first.wait()
    before = summaries(tmp_path)
    assert 9 <= ended() < 20
    resumed = subprocess.run(
        [*command, "resume=true"], env=where, capture_output=True, text=True, timeout=280
    )
    assert resumed.returncode == 1, resumed.stderr
    found = summaries(tmp_path)
    outcomes = {path: one for path, one in found.items() if one["status"] in ("finished", "failed")}
    assert len(outcomes) == 20
    assert len({one["identity"] for one in outcomes.values()}) == 20
    kept = {path: one for path, one in before.items() if one["status"] in ("finished", "failed")}
    assert all(found[path] == one for path, one in kept.items()), "what had an outcome is as it was"
    failed = {Run.load(path).config["seed"]: one["error"] for path, one in outcomes.items() if one["error"]}
    assert sorted(failed) == [3, 7, 11]
    assert failed[3] == "killed by SIGSEGV"
    assert "loss" in failed[7]
    assert failed[11].startswith("killed by SIGKILL")
    for path, one in found.items():
        run = Run.load(path)
        assert (path / "trial.log").exists()
        assert len(run.epochs) == one["epochs"] if run.has("epochs") else one["epochs"] == 0
        if one["status"] == "finished":
            assert one["epochs"] == 2
            assert len(run.tasks) > 0
    crashed = next(path for path, one in outcomes.items() if one["error"] == "killed by SIGSEGV")
    assert "Segmentation fault" in (crashed / "trial.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("guard", "status"), [("label", "finished"), ("refuse", "failed"), ("off", "finished")]
)
def test_a_process_that_computes_beside_a_training_disturbs_it(
    environment: dict[str, str], tmp_path: Path, guard: str, status: str
) -> None:
    small = ("dataset=synthetic", "dataset.train_size=20000", "dataset.test_size=64", "epochs=20")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        done = subprocess.run(
            [sys.executable, "-m", "experiments.run", *small, f"guard={guard}", f"output={tmp_path}/runs"],
            env=environment | {"DAHL_LOCK": str(tmp_path / "lock")},
            capture_output=True,
            text=True,
        )
        other.kill()
    ((run_dir, found),) = summaries(tmp_path).items()
    assert (found["status"], done.returncode) == (status, int(status == "failed"))
    assert found["disturbed"] is (None if guard == "off" else True)
    if guard != "refuse":  # which says so in its error, and may end before the line
        assert ("disturbed: up to " in done.stdout) == (guard == "label")
    if guard == "off":
        assert not (run_dir / "guard.parquet").exists()
        return
    whole = load_runs(run_dir).table("guard").set_index("window").loc["compilation"]
    assert whole["foreign_cores"] > 0.2
    if guard == "refuse":
        assert "guard=refuse" in found["error"]
