"""The command itself on the real StarPU, native and simulated, with a small made-up data set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from experiments import Run
from experiments.tracing.content import content_of
from experiments.validation import CHECKOUT
from tests.energy.hwmon_tree import orin_nano

SMALL = ("dataset=synthetic", "dataset.train_size=500", "dataset.test_size=100", "epochs=2")
NAMED = ("eager", "lws", "prio", "random", "ws", "dm", "dmda", "dmdas", "heteroprio", "eager_energy")


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.run", *arguments, *SMALL, f"output={tmp_path}"]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=280, check=False)


def summaries(tmp_path: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/*/summary.json"))]
    return {summary["scheduler"]: summary for summary in found}


def test_every_named_scheduler_trains_to_the_same_weights_with_one_worker_and_with_two(
    tmp_path: Path,
) -> None:
    """500 images in batches of 64 leave 52 for the last one."""
    digests = set()
    for workers in (1, 2):
        done = run(tmp_path / str(workers), "-m", f"scheduler={','.join(NAMED)}", f"workers={workers}")
        assert done.returncode == 0, done.stdout + done.stderr
        found = summaries(tmp_path / str(workers))
        assert set(found) == set(NAMED)
        for summary in found.values():
            assert (summary["status"], summary["epochs"]) == ("finished", 2)
            assert summary["accuracy"] > 0.5
            assert summary["joules_per_epoch"] > summary["joules_per_epoch_net"] > 0
            assert summary["energy_quality"] == "estimated"
        digests |= {summary["weights_sha256"] for summary in found.values()}
    assert len(digests) == 1


def test_a_run_leaves_its_records(tmp_path: Path) -> None:
    done = run(tmp_path, "scheduler=eager_energy")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = tmp_path.glob("*/*")
    assert str(folder) in done.stdout
    assert pq.read_table(folder / "epochs.parquet").num_rows == 2
    tasks = pq.read_table(folder / "tasks.parquet").to_pandas()
    assert {"cnn_step", "sum_and_step", "cnn_evaluation"} <= set(tasks["codelet"])
    assert (tasks["end_s"] >= tasks["start_s"]).all()
    assert (tasks["predicted_s"] > 0).all(), "eager_energy runs on measured lengths"
    assert tasks["task"].is_unique
    power = pq.read_table(folder / "power.parquet").to_pandas()
    assert (power["watts"].dropna() > 0).all()
    for name in ("config.yaml", "environment.json", "windows.parquet", "trial.log"):
        assert (folder / name).stat().st_size > 0, name
    content = content_of(Run.load(folder))
    earlier, later = content.pairs.T
    assert len(content.pairs) > 30
    waited = content.tasks["start_s"].to_numpy()[later] - content.tasks["end_s"].to_numpy()[earlier]
    assert (waited >= 0).all(), "StarPU kept to the order that the recorded accesses give"


def test_a_run_on_a_boards_sensor_is_measured_and_says_which_rail_it_could_not_read(tmp_path: Path) -> None:
    board = orin_nano(tmp_path / "hwmon")  # 6 W
    (board / "hwmon4" / "curr3_input").write_text("")
    settings = (
        "scheduler=eager",
        "energy=hwmon",
        f"+energy.settings.hwmon.root={board}",
        "energy.idle_baseline_s=0",
    )
    done = run(tmp_path / "runs", *settings, "energy.min_window_s=0.1")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "runs").glob("*/*")
    energy = json.loads((folder / "environment.json").read_text())["energy"]
    assert energy["sources"] == {"hwmon": "measured"}
    assert list(energy["left_out"]) == ["hwmon:VDD_SOC"]
    windows = pq.read_table(folder / "windows.parquet").to_pandas()
    windows = windows[windows["in_total"] & windows["gross_j"].notna()]
    assert set(windows["channel"]) == {"hwmon:VDD_IN"}
    assert (windows["gross_j"] / windows["seconds"]).to_numpy() == pytest.approx(6.0, rel=0.05)


def test_explained_decisions_are_kept_and_name_what_was_chosen(tmp_path: Path) -> None:
    done = run(tmp_path, "scheduler=eager_energy", "scheduler.explain=true")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = tmp_path.glob("*/*")
    decisions = pq.read_table(folder / "decisions.parquet").to_pandas()
    tasks = pq.read_table(folder / "tasks.parquet").to_pandas()
    chosen = decisions[decisions["chosen"]].set_index("task")["worker"]
    assert chosen.index.is_unique
    assert dict(chosen) == dict(tasks.set_index("task")["worker"])


def test_an_interpreted_policy_gives_the_same_weights(tmp_path: Path) -> None:
    for compiled in ("true", "false"):
        done = run(tmp_path / compiled, "scheduler=eager_energy", f"scheduler.compiled={compiled}")
        assert done.returncode == 0, done.stdout + done.stderr
    digests = {
        summary["weights_sha256"]
        for way in ("true", "false")
        for summary in summaries(tmp_path / way).values()
    }
    assert len(digests) == 1


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """Two sweeps over the same schedulers on the same simulated node."""
    sweeps = []
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp(name)
        done = run(folder, "-m", "scheduler=eager,eager_energy,dmdas", "platform=cpu8_gpu2")
        assert done.returncode == 0, done.stdout + done.stderr
        sweeps.append(summaries(folder))
    return sweeps


def test_a_simulation_gives_the_same_digits_twice(simulated: list[dict[str, dict[str, Any]]]) -> None:
    first, second = simulated
    assert first == second
    assert all(summary["seconds_per_epoch"] > 0 for summary in first.values())


def test_on_a_node_with_gpus_eager_energy_takes_fewer_joules_than_eager(
    simulated: list[dict[str, dict[str, Any]]],
) -> None:
    found = simulated[0]
    assert found["eager_energy"]["joules_per_epoch"] < found["eager"]["joules_per_epoch"]


def test_a_simulation_says_so_and_has_no_accuracy(simulated: list[dict[str, dict[str, Any]]]) -> None:
    for summary in simulated[0].values():
        assert summary["simulated"] is True
        assert summary["energy_quality"] == "simulated"
        assert summary["accuracy"] is None
        assert summary["loss"] is None
        assert summary["weights_sha256"] is None


def test_a_rate_for_an_energy_source_that_there_is_not_is_one_clear_line(tmp_path: Path) -> None:
    done = run(tmp_path, "energy.rate_hz={rappl: 100, default: 10}")
    assert done.returncode == 1
    (summary,) = summaries(tmp_path).values()
    assert "energy.rate_hz.rappl: there is no such energy source; there are rapl, " in summary["error"]
