"""Runs with GPU workers as commands, over libraries that stand in for CUDA's (tests/gpu_stand_in)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from dahl.starpu import NoGpuError
from dahl.starpu.gpu_probe import GpuDevice, GpuProbe, usable
from experiments.validation import ConfigError, split_workers
from tests.dahl.cuda_host import needs_compiler
from tests.gpu_stand_in.build import ROOT, environment, needs_stand_in

CARD = GpuDevice(0, 90, 0, "0000:01:00.0", "card")
SMALL = [
    "model=basic_cnn",
    "dataset=synthetic",
    "dataset.height=10",
    "dataset.width=12",
    "dataset.train_size=16",
    "dataset.test_size=4",
    "batch_size=8",
    "tile=4",
    "epochs=2",
    "guard=off",
    "energy=model",
]


def run(folder: Path, *overrides: str, **settings: object) -> tuple[subprocess.CompletedProcess[str], Path]:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", *SMALL, f"output={folder}", *overrides],
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done, next((folder / "trials").iterdir())


def read(run_dir: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((run_dir / name).read_text()))


@needs_stand_in
@needs_compiler
def test_a_policy_gets_times_of_both_kinds_of_workers_and_the_run_tells_what_moved(tmp_path: Path) -> None:
    done, run_dir = run(tmp_path, "scheduler=eager_energy", "workers.cpu=1", "workers.gpu=1")
    assert done.returncode == 0, done.stdout + done.stderr
    starpu, summary = read(run_dir, "environment.json")["starpu"], read(run_dir, "summary.json")
    assert starpu["variant"] == "cuda"
    assert [name.split()[0] for name in starpu["workers"]] == ["CUDA", "CPU"]
    assert "stand-in for a GPU" in starpu["workers"][0]
    tasks = pd.read_parquet(run_dir / "tasks.parquet")
    assert tasks["predicted_s"].notna().all()
    moved = pd.read_parquet(run_dir / "transfers.parquet")
    own = moved[moved["window"] == "epoch"]
    assert summary["transferred_bytes_per_epoch"] == own["bytes"].sum() / 2
    assert set(zip(moved["source"], moved["target"], strict=True)) <= {(0, 1), (1, 0)}


@needs_stand_in
def test_where_no_gpu_can_be_used_the_run_is_refused_or_goes_on_on_the_cpu_as_asked(tmp_path: Path) -> None:
    exclusive = {"STAND_IN_EXCLUSIVE": 1}
    asked = ("scheduler=eager", "workers.cpu=1", "workers.gpu=1")
    refused, run_dir = run(tmp_path / "refuse", *asked, **exclusive)
    why = "GPU 0 cannot be used: asking for its memory: CUDA-capable device(s) is/are busy or unavailable"
    assert refused.returncode == 1
    assert why in read(run_dir, "summary.json")["error"]
    went_on, run_dir = run(tmp_path / "cpu", *asked, "without_gpu=cpu", **exclusive)
    assert went_on.returncode == 0, went_on.stdout + went_on.stderr
    starpu = read(run_dir, "environment.json")["starpu"]
    assert (starpu["variant"], starpu["workers"]) == ("native", ["CPU 0"])
    assert why in starpu["without_gpu_because"]
    assert "without_gpu=cpu: this run takes CPU cores only" in went_on.stdout
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["gpu_workers"] == 1


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        (GpuProbe((), 0, 13000, 35, "insufficient"), 1, "no NVIDIA driver is found"),
        (
            GpuProbe((), 12020, 13000, 35, "insufficient"),
            1,
            "knows CUDA up to 12.2, StarPU was built with CUDA 13.0",
        ),
        (
            GpuProbe((), 13000, 13000, 803, "unsupported combination"),
            1,
            "unsupported combination (error 803)",
        ),
        (GpuProbe((), 13000, 13000, 100, "no device"), 1, "1 GPU workers are asked for, but CUDA shows 0"),
        (GpuProbe((CARD,), 13000, 13000, 0, ""), 2, "2 GPU workers are asked for, but CUDA shows 1"),
        (GpuProbe((GpuDevice(0, 90, 2, "a", "b"),), 13000, 13000, 0, ""), 1, "compute mode `prohibited`"),
    ],
)
def test_what_is_wrong_with_driver_or_gpus_is_one_line(found: GpuProbe, wanted: int, words: str) -> None:
    with pytest.raises(NoGpuError) as caught:
        usable(found, wanted)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_gpus_are_those_that_there_are() -> None:
    assert usable(GpuProbe((CARD,), 13000, 13000, 0, ""), None) == 1
    assert usable(GpuProbe((), 0, 13000, 35, ""), None) == 0


def test_workers_are_given_apart_or_as_one_number() -> None:
    assert split_workers({"workers": {"cpu": 2, "gpu": 1}}) == {"workers": 2, "gpu_workers": 1}
    assert split_workers({"workers": 2}) == {"workers": 2, "gpu_workers": 0}
    with pytest.raises(ConfigError, match=r"unknown key 'workers\.tpu'; there are: cpu, gpu"):
        split_workers({"workers": {"tpu": 1}})
