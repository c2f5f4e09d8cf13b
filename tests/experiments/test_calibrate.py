"""The command on the real StarPU: without a counter only time is measured, and the watts are the model's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from energy import Channel, Selection
from experiments import alone, calibrate_check, calibrate_tile, records
from experiments.events import EventWriter
from experiments.measured import as_measurement
from experiments.validation import CHECKOUT
from experiments.workload import Workload, load_workload
from tests.energy.sources import HandSource
from tests.experiments.conftest import configuration, wait_for

SMALL = (
    "model=basic_cnn",
    "dataset=synthetic",
    "dataset.train_size=64",
    "dataset.test_size=64",
    "energy=model",
)
QUICK = (*SMALL, "batch_size=16", "tile=16", "fuse=false", "limit_s=0.01")


WATTS = {"idle_w": 0.0, "polling_w": 0.0, "busy_w": 5.0}


def command(file: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "experiments.calibrate", *arguments, f"file={file}"]


def run(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(file, *arguments), cwd=CHECKOUT, capture_output=True, text=True, timeout=200, check=False
    )


def tasks(file: Path) -> list[dict[str, Any]]:
    return list(json.loads(file.read_text())["tasks"]) if file.exists() else []


def test_it_goes_on_where_it_was_stopped_and_measures_nothing_twice(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    with subprocess.Popen(
        command(file, *QUICK), cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: len(tasks(file)) >= 3, limit_s=120)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert "the same command goes on from here" in error
    before = tasks(file)
    assert 3 <= len(before) < 40

    second = run(file, *QUICK)
    assert second.returncode == 0, second.stdout + second.stderr
    after = tasks(file)
    assert after[: len(before)] == before
    assert f"{len(after)} kinds of task, {len(before)} measured before" in second.stdout
    assert "watts and joules are estimated" in second.stdout
    assert str(file) in second.stdout
    for task in map(as_measurement, after):
        assert 0 < task.seconds_low <= task.seconds <= task.seconds_high
        # configs/energy/model.yaml: 9 W busy, 0.5 W asleep.
        assert (task.watts, task.quality, task.resolved) == (8.5, "estimated", False)
        assert task.energy_j == pytest.approx(8.5 * task.seconds)
    assert {"gather", "conv2d", "sgd_4d"} <= {task["operation"] for task in after}
    assert not list(tmp_path.glob(".calibrate-*"))
    (training,) = json.loads(file.read_text())["in_training"]
    assert (training["scheduler"], training["tile"], training["fused"]) == ("eager", 16, False)
    assert set(training["seconds"]) < {task["key"] for task in json.loads(file.read_text())["tasks"]}
    assert sum(training["counts"].values()) == training["tasks"] > 0
    assert 0 < training["around"]["gap_s"] < 1

    whole = file.read_bytes()
    third = run(file, *QUICK)
    assert third.returncode == 0
    assert f"{len(after)} kinds of task, {len(after)} measured before" in third.stdout
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tile=auto"], "tile=auto: a calibration needs the sizes themselves"),
        (["tile=[]"], "tile=[]: must be a tile size, or a list of them"),
        (["tile=[8,999]"], "tile=999 is larger than batch_size=64"),
        (
            ["epochs=3"],
            "unknown key 'epochs'; there are: model, dataset, energy, platform, batch_size, tile, fuse",
        ),
        (["schedulers=[foo]"], "schedulers=['foo']: must be a list of names; there are: dm, dmda"),
        (["limit_s=0"], "limit_s=0: must be a number of seconds above 0"),
        (["platform=cpu8_gpu2"], "only platform=host can be calibrated"),
        (["energy=rapl"], "energy source 'rapl' is not available"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    if arguments == ["energy=rapl"] and Path("/sys/class/powercap/intel-rapl:0").exists():
        pytest.skip("this machine has RAPL")
    done = run(tmp_path / "measured.json", *SMALL[:4], *arguments)
    assert done.returncode in (1, 2)
    (line,) = done.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "measured.json").exists()


def test_a_file_that_is_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.json"
    file.write_text("not mine")
    done = run(file, *QUICK)
    assert done.returncode == 2
    assert f"{file} is no file of experiments.calibrate" in done.stderr
    assert file.read_text() == "not mine"


def test_with_a_counter_each_kind_has_its_watts_and_training_is_set_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counter shows 40 W whatever runs: nothing above idle."""
    package = Channel("rapl:package-0", "package", True, 1e-6, None, 0.001)
    source = HandSource("rapl", {package: lambda t_ns: t_ns * 40 // 1000})

    def with_counter(config: dict[str, Any], events: EventWriter) -> Workload:
        return replace(load_workload(config, events), sources=Selection((source,), ()))

    monkeypatch.setattr(calibrate_tile, "load_workload", with_counter)
    monkeypatch.setattr(alone, "SHORTEST_BURST_S", 0.02)
    monkeypatch.setattr(calibrate_check, "CHECK_S", 0.3)
    file = tmp_path / "measured.json"
    asked = {"file": str(file), "fresh": False, "limit_s": 0.05, "idle_s": 0.2, "schedulers": {}}
    energy = {"sources": [], "rate_hz": 10, "model": {"base_w": 1.0, "cpu": WATTS}}
    dataset = {"_target_": "dahl.datasets.Synthetic", "train_size": 64, "test_size": 64}
    config = configuration(dataset=dataset, energy=energy, batch_size=16, fuse=False, calibrate=asked)
    records.write_config(tmp_path, config)
    result = calibrate_tile.run(tmp_path, EventWriter(None))
    assert result["measured"] == result["kinds"] == len(tasks(file)) > 20
    record = json.loads(file.read_text())
    idle = record["energy"]["idle_w"]["rapl:package-0"]
    assert idle["watts"] == pytest.approx(40.0, rel=0.01)
    assert record["energy"]["runtime_w"] == pytest.approx(0.0, abs=0.5)
    assert not record["energy"]["idle_drift"]["rapl:package-0"]["drifted"]
    for task in map(as_measurement, tasks(file)):
        assert task.quality == "measured"
        assert task.watts_low <= task.watts <= task.watts_high
        assert not task.resolved, "no watts above idle can be known to 5 % of themselves"
    (check,) = record["checks"]
    assert check["tile"] == 16
    assert abs(check["measured_j"]) < 0.05 * 40 * check["seconds"]
    assert record["machine"]["cpu"]
    assert record["versions"]["starpu"]
    again = tmp_path / "again"
    again.mkdir()
    records.write_config(again, config)
    assert calibrate_tile.run(again, EventWriter(None)) == {"kinds": result["kinds"], "measured": 0}
    assert json.loads(file.read_text()) == record
