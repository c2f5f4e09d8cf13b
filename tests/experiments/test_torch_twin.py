"""Trials in PyTorch beside trials on StarPU: the same command, the same records."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments import records
from experiments.summary import scheduler_name
from experiments.torch_environment import TorchMissingError, prepare
from experiments.validation import CHECKOUT, ConfigError, validate
from tests.experiments.conftest import CHOICES, configuration

TORCH = {"name": "torch", "memory_format": "contiguous", "compile": False, "normalise": "each_batch"}
NODE = {"_target_": "experiments.platform.SimulatedNode", "simulated": True}
SMALL = (
    "dataset=synthetic",
    "dataset.train_size=300",
    "dataset.test_size=100",
    "epochs=2",
    "batch_size=8",
    "tile=8",
    "workers=1",
    "energy=model",
    "allow_concurrent=true",
    "energy.activity=cpu_time",
)


def run(module: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments, *SMALL, f"output={folder}"]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a run in each framework, from one sweep."""
    pytest.importorskip("torch", reason="PyTorch, the extra `torch`, is not installed")
    folder = tmp_path_factory.mktemp("runs")
    done = run("experiments.run", folder, "-m", "framework=starpu,torch", "scheduler=lws")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 threads · PyTorch" in done.stdout
    return {records.read_json(path)["framework"]: path.parent for path in folder.glob("*/*/summary.json")}


def test_both_leave_the_same_records_but_for_tasks(both: dict[str, Path]) -> None:
    files = {name: {path.name for path in folder.iterdir()} for name, folder in both.items()}
    assert files["starpu"] - files["torch"] == {"tasks.parquet", "accesses.json", "starpu"}
    assert files["torch"] <= files["starpu"]
    for table in ("epochs", "windows", "guard", "power"):
        starpu, torch = (pd.read_parquet(folder / f"{table}.parquet") for folder in both.values())
        assert list(starpu) == list(torch)


def test_both_learn_the_same(both: dict[str, Path]) -> None:
    starpu, torch = (pd.read_parquet(both[name] / "epochs.parquet") for name in ("starpu", "torch"))
    assert torch["loss"].to_numpy() == pytest.approx(starpu["loss"].to_numpy(), rel=1e-5)
    assert torch["test_loss"].to_numpy() == pytest.approx(starpu["test_loss"].to_numpy(), rel=1e-5)
    assert torch["accuracy"].tolist() == starpu["accuracy"].tolist()


def test_the_summary_names_the_framework_and_that_there_are_no_tasks(both: dict[str, Path]) -> None:
    found = {name: records.read_json(folder / "summary.json") for name, folder in both.items()}
    assert found["torch"].keys() == found["starpu"].keys()
    assert (found["torch"]["scheduler"], found["torch"]["tasks_recorded"]) == ("torch", False)
    assert (found["starpu"]["scheduler"], found["starpu"]["tasks_recorded"]) == ("lws", True)
    assert {summary["energy_quality"] for summary in found.values()} == {"estimated"}
    described = records.read_json(both["torch"] / "environment.json")
    assert described["torch"]["threads"] == 1
    assert described["torch"]["version"] == described["libraries"]["torch"]
    assert described["energy"]["activity"] == "cpu_time"


def test_joules_are_assumed_watts_times_seconds_and_cpu_seconds_in_both(both: dict[str, Path]) -> None:
    """15 W whatever happens, 0.5 W for the worker, 8.5 W more for each CPU second: configs/energy/model.yaml."""
    for name, folder in both.items():
        epochs = pd.read_parquet(folder / "epochs.parquet")
        windows = pd.read_parquet(folder / "windows.parquet").query(
            "window == 'epoch' and channel == 'model:cpu'"
        )
        assert (epochs["cpu_s"] > 0).all()
        expected_j = 8.5 * epochs["cpu_s"].to_numpy()
        # The window holds a few milliseconds more than the epoch.
        assert epochs["net_j"].to_numpy() == pytest.approx(expected_j, rel=0.2, abs=0.03), name
        idle_j = epochs["gross_j"].to_numpy() - epochs["net_j"].to_numpy()
        assert idle_j == pytest.approx(15.5 * windows["seconds"].to_numpy()), name


def test_the_command_of_its_own_is_the_run_with_the_framework_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from experiments import torch_twin

    monkeypatch.setattr(torch_twin.run, "main", lambda: sys.argv[1:])
    monkeypatch.setattr(sys, "argv", ["torch_twin", "model=lenet", "-m"])
    assert torch_twin.main() == ["framework=torch", "model=lenet", "-m"]


def test_without_pytorch_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TorchMissingError) as caught:
        prepare()
    assert str(caught.value) == (
        "framework=torch: PyTorch is not installed; `pip install torch` gets it, framework=starpu does without"
    )


def test_a_trial_without_pytorch_fails_with_that_line(tmp_path: Path) -> None:
    """In a process of its own whose import system knows no torch."""
    config = configuration(framework=TORCH, choices=CHOICES | {"framework": "torch"})
    records.write_config(tmp_path, config)
    code = (
        "import importlib.util as u, sys; from experiments import trial; find = u.find_spec; "
        "u.find_spec = lambda name, *more: None if name == 'torch' else find(name, *more); "
        f"sys.exit(trial.main([{str(tmp_path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    failed = json.loads(done.stderr.splitlines()[-1])
    assert failed["message"].startswith("framework=torch: PyTorch is not installed;")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"platform": NODE},
            "framework=torch: PyTorch runs on this machine only, not on a simulated node; platform=host",
        ),
        (
            {"scheduler": {"name": "x", "explain": True}},
            "scheduler.explain=true: PyTorch has no scheduler; framework=starpu",
        ),
        (
            {"energy": {"activity": "tasks"}},
            "energy.activity=tasks: PyTorch has no tasks; energy.activity=auto or cpu_time",
        ),
        (
            {"framework": TORCH | {"memory_format": "rows"}},
            "framework.memory_format=rows: must be contiguous or channels_last",
        ),
        ({"framework": TORCH | {"compile": 1}}, "framework.compile=1: must be true or false"),
        ({"framework": TORCH | {"normalise": True}}, "framework.normalise=True: must be each_batch or once"),
    ],
)
def test_what_pytorch_cannot_do_is_refused_before_anything_starts(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(configuration(framework=TORCH) | changes, processors=2)
    assert str(caught.value).splitlines() == [line]


def test_a_tile_means_nothing_to_pytorch() -> None:
    validate(configuration(framework=TORCH, batch_size=1, tile=16), processors=2)


def test_a_simulated_node_has_no_cpu_time() -> None:
    with pytest.raises(ConfigError, match="a simulated node uses no CPU time"):
        validate(configuration(platform=NODE, energy={"activity": "cpu_time"}), processors=2)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "torch"),
        ({"memory_format": "channels_last"}, "torch+channels_last"),
        ({"compile": True, "normalise": "once"}, "torch+compile+normalised_once"),
    ],
)
def test_runs_with_other_options_stand_in_tables_by_other_names(options: dict[str, Any], name: str) -> None:
    assert scheduler_name(configuration(framework=TORCH | options, choices=CHOICES)) == name
