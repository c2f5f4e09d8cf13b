"""Each benchmark runs, with tiny sizes, and writes its figures; how fast anything is, no test looks at."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import schedulers
from benchmarks import policy_overhead
from benchmarks.kernels import Work
from dahl import ops, starpu

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "scheduler"


def run(name: str, folder: Path, *arguments: str, code: int = 0) -> tuple[dict[str, Any], str]:
    """Run a benchmark; return what it wrote as JSON and what it printed."""
    path = folder / f"{name}.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(path), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == code, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return json.loads(path.read_text()) if code == 0 else {}, done.stdout + done.stderr


def test_submission_measures_every_form_under_every_scheduler(tmp_path: Path) -> None:
    found, printed = run("submission", tmp_path, "--tasks", "150", "--rounds", "2", "--workers", "1")
    assert found["benchmark"] == "submission"
    assert found["tasks"] == 200, "the recorded graph has 100 tasks"
    assert {name.split(",")[0] for name in found["us_per_task"]} == {"eager", "lws", "EagerEnergy"}
    for forms in found["us_per_task"].values():
        assert set(forms) == {"submit", "submit, 3 handles", "graph", "graph, 3 handles"}
        assert all(len(form["values"]) == 2 and form["lowest"] > 0 for form in forms.values())
    for form, holds in found["target_holds"].items():
        assert holds is all(forms[form]["median"] <= 6 for forms in found["us_per_task"].values())
    assert "at most 6 us" in printed


def test_idle_measures_awake_and_paused_workers_of_each_build(tmp_path: Path) -> None:
    arguments = (
        "--seconds",
        "0.1",
        "--rounds",
        "1",
        "--workers",
        "1",
        "--schedulers",
        "eager",
        "EagerEnergy",
    )
    found, printed = run("idle", tmp_path, *arguments)
    assert {case.split(", ")[1] for case in found["idle"]} == {"eager", "EagerEnergy"}
    for case, figures in found["idle"].items():
        assert set(figures) == {"awake", "paused", "trip_us", "rested_trip_us"}
        assert figures["trip_us"]["median"] > 0
        if case.startswith("polling"):
            assert figures["awake"]["median"] > figures["paused"]["median"]
    assert ("no polling build" in printed) == (not any(case.startswith("polling") for case in found["idle"]))


def test_policy_overhead_knows_every_policy_that_has_a_configuration() -> None:
    configured = {path.stem.replace("_", "") for path in CONFIGS.glob("*.yaml")}
    ours = {name.lower() for name in policy_overhead.policies()}
    assert "eagerenergy" in ours
    assert ours <= configured
    exported = {name.lower() for name in schedulers.__all__}
    assert ours == configured & exported


@pytest.mark.slow  # 13 to 19 s, and a benchmark is run by who reads its figures
def test_policy_overhead_measures_policies_compiled_and_interpreted(tmp_path: Path) -> None:
    sizes = ("--tasks", "150", "--simulated-tasks", "100", "--rounds", "1", "--workers", "1")
    which = ("--policies", "EagerEnergy", "--places", "native", "simulated")
    found, printed = run("policy_overhead", tmp_path, *sizes, *which)
    expected = {"eager", "lws", "dmda", "EagerEnergy, compiled", "EagerEnergy, interpreted"}
    columns = product(("native", "simulated"), ("empty", "3 handles"), ("wall", "processors"))
    assert set(found["us_per_task"]) == {", ".join(column) for column in columns}
    for form, cases in found["us_per_task"].items():
        assert set(cases) == expected
        assert all(case["lowest"] > 0 for case in cases.values())
        cheap = cases["EagerEnergy, compiled"]["median"] <= cases["dmda"]["median"]
        assert found["no_more_than_dmda"][form] == (["EagerEnergy, compiled"] if cheap else [])
    assert "100 empty tasks on 24 simulated workers" in printed


def test_memory_is_written_for_each_epoch(tmp_path: Path) -> None:
    arguments = ("--images", "96", "--epochs", "3", "--batch", "32", "--workers", "1")
    found, printed = run("memory", tmp_path, *arguments)
    points = {point["when"]: point for point in found["points"]}
    assert list(points) == ["data set loaded", "before training", "epoch 1", "epoch 2", "epoch 3"]
    assert found["image_bytes"] == (96 + 16) * 28 * 28
    assert all(0 < point["resident_mib"] <= point["peak_mib"] for point in points.values())
    assert points["epoch 2"]["tasks"] == points["epoch 3"]["tasks"] > 0
    second, third = points["epoch 2"], points["epoch 3"]
    grown = [third[name] - second[name] for name in ("resident_mib", "peak_mib")]
    assert found["growth_mib"] == pytest.approx(max(grown))
    assert "from epoch 2 to 3" in printed


def test_kernels_lists_every_kind_of_task_of_a_model(tmp_path: Path) -> None:
    arguments = ("--models", "basic_cnn", "--batches", "3", "--rounds", "1", "--copy-mib", "1")
    found, _ = run("kernels", tmp_path, *arguments)
    kinds = {row["kind"]: row for row in found["kinds"]["basic_cnn"]}
    conv = kinds["conv2d/16x1x28x28/4x1x3x3/16x4x26x26"]
    assert conv["tasks"] == 4
    flops = 2 * 9 * 16 * 4 * 26 * 26  # a multiplication and an addition for each tap of each output pixel
    assert conv["gflop_per_s"] == pytest.approx(flops / conv["us"]["median"] / 1e3)
    assert {kind.split("/")[0] for kind in kinds} >= {"gather", "max_pool2d_backward", "sgd_2d", "record"}
    assert found["us_per_batch"]["basic_cnn"]["batch"]["median"] > 0
    fused = {row["kind"].split("/")[0]: row for row in found["kinds"]["basic_cnn, fused"]}
    # Forward four results of each of 4 x 13 x 13 windows, backward one, 9 taps each; the linear layer three times.
    flops = 2 * 16 * (5 * 676 * 9 + 3 * 676 * 10)
    assert fused["cnn_step"]["gflop_per_s"] == pytest.approx(flops / fused["cnn_step"]["us"]["median"] / 1e3)
    assert set(fused) == {"cnn_step", "sum_and_step"}


def test_the_work_of_a_task_is_noted_under_its_kind_and_its_length_stays_unknown() -> None:
    work = Work()
    worker = starpu.Worker(0, "CPU 0", "cpu", 0, 0, "cpu")
    shapes = {"x": (2, 3), "w": (5, 3), "y": (2, 5)}
    assert math.isnan(work.length_s(worker, ops.LINEAR, shapes, {}))
    assert work.by_key["linear/2x3/5x3/2x5"].flops == 2 * 2 * 3 * 5


@pytest.mark.slow  # 13 to 19 s, and a benchmark is run by who reads its figures
def test_training_without_pytorch_says_so_and_measures_the_rest(tmp_path: Path) -> None:
    arguments = ("--models", "basic_cnn", "--batches", "32", "--images", "64", "--rounds", "1")
    plot = tmp_path / "tiles.svg"
    other = ("--pytorch-python", str(tmp_path / "python"), "--plot", str(plot))
    found, printed = run("training", tmp_path, *arguments, *other)
    assert "no PyTorch here" in printed
    assert found["pytorch"] is None
    assert found["times_the_best_pytorch"] == {}
    cells = found["images_per_s"]["basic_cnn, batch 32"]
    assert "dahl, 1 workers" in cells
    assert all(cell["median"] > 0 for cell in cells.values())
    tiles = found["tiles"]["1"]["basic_cnn, batch 32"]
    assert set(tiles) == {"16", "32"}
    for tile, figures in tiles.items():
        assert 0 < figures["outside_kernels"] < 1
        assert figures["estimated_j_per_1000_images"] > 0
        # a task for each tile and the update, which is part of the step where there is one tile only
        assert figures["tasks_per_batch"] == {"16": 3, "32": 1}[tile]
    assert plot.stat().st_size > 0


def test_training_compares_what_the_other_interpreter_measures(tmp_path: Path) -> None:
    """A stand-in for an interpreter with PyTorch, which answers 10 images/s to everything."""
    stand_in = tmp_path / "python"
    answer = json.dumps({"basic_cnn, batch 32; eager": 10.0, "basic_cnn, batch 32; channels_last": 5.0})
    stand_in.write_text(f"#!/bin/sh\nif [ \"$1\" = -c ]; then echo 9.9; else echo '{answer}'; fi\n")
    stand_in.chmod(0o755)
    arguments = ("--models", "basic_cnn", "--batches", "32", "--images", "64", "--rounds", "1")
    found, _ = run("training", tmp_path, *arguments, "--pytorch-python", str(stand_in))
    cells = found["images_per_s"]["basic_cnn, batch 32"]
    fastest = max(cell["median"] for who, cell in cells.items() if who.startswith("dahl"))
    assert found["pytorch"] == "9.9"
    assert found["times_the_best_pytorch"]["basic_cnn, batch 32"]["medians"] == pytest.approx(fastest / 10)


def test_a_process_that_fails_ends_the_training_benchmark_with_its_last_words(tmp_path: Path) -> None:
    _, printed = run("training", tmp_path, "--scheduler", "nobody", "--images", "64", "--rounds", "1", code=1)
    assert "no scheduler 'nobody'" in printed


def test_alumet_import_reads_a_recording_by_every_reader(tmp_path: Path) -> None:
    arguments = ("--gigabytes", "0.001", "--rounds", "1", "--kinds", "all metrics")
    found, printed = run("alumet_import", tmp_path, *arguments)
    readers = {"import_recording", "lines counted", "pyarrow.csv alone", "pandas.read_csv"}
    file = found["files"]["all metrics"]
    assert 900_000 < file["bytes"] < 1_100_000
    assert set(file["cases"]) == readers
    assert all(case["mb_per_s"]["lowest"] > 0 < case["peak_mib"]["lowest"] for case in file["cases"].values())
    figures = file["cases"]["import_recording"]
    fast = figures["mb_per_s"]["median"] >= 100 and figures["peak_mib"]["highest"] <= 300
    assert found["target_holds"] == {"all metrics": fast}
    assert "at least 100 MB/s in at most 300 MiB" in printed


def test_the_sampler_is_measured_alone_where_no_other_reader_is_installed(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"missing": "nobody is installed"}\'\n')
    python.chmod(0o755)
    arguments = ("--seconds", "0.5", "--rounds", "1", "--rates", "100", "--readings", "50")
    found, printed = run("sampler", tmp_path, *arguments, "--peers-python", str(python))
    assert set(found["waking"]) == {"idle, 100 Hz", "busy, 100 Hz"}
    assert set(found["sampling"]) == {
        f"{case}, {loop}" for case in found["waking"] for loop in ("native", "python")
    }
    assert all(figures["percent"]["median"] > 0 for figures in found["waking"].values())
    for figures in found["sampling"].values():
        assert figures["percent"]["median"] > 0
        assert 0 < figures["late_p50_us"]["median"] <= figures["late_p99_us"]["median"]
    assert found["readings"]["dahl"]["counters"]["median"] == 6
    assert set(found["readings"]) == {"dahl"}
    assert len(found["missing"]) == 3
    assert "nobody is installed: python -m pip install" in printed
    share = found["sampling"]["busy, 100 Hz, native"]["percent"]["median"]
    assert found["targets"]["busy, 100 Hz, native: at most 1 % of a core"] is (share <= 1.0)


def test_other_readers_are_measured_on_the_same_tree(tmp_path: Path) -> None:
    """A stand-in for an interpreter with the other readers, which answers 10 us to everything."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"us": 10.0, "counters": 2}\'\n')
    python.chmod(0o755)
    arguments = ("--seconds", "0.3", "--rounds", "1", "--rates", "50", "--readings", "50")
    found, _ = run("sampler", tmp_path, *arguments, "--peers-python", str(python))
    assert set(found["readings"]) == {"dahl", "pyRAPL", "CodeCarbon", "Zeus"}
    assert found["readings"]["Zeus"]["us"]["median"] == 10.0
    assert found["missing"] == []


def test_a_simulation_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    sizes = ("--images", "256", "--batch", "128", "--rounds", "2", "--tasks", "400")
    found, printed = run("simulation", tmp_path, *sizes, "--platform", "cpu8_gpu2", "--schedulers", "dmda")
    epoch = found["epochs"]["dmda"]
    assert epoch["simulated_s"]["lowest"] == epoch["simulated_s"]["highest"] > 0
    assert epoch["tasks"]["median"] > 2 * 2 * 10, (
        "two mini-batches of two tiles, each of ten operations and more"
    )
    assert epoch["processor_s"]["median"] > 0
    assert found["many"]["tasks"]["median"] >= 400
    assert "an epoch on cpu8_gpu2, dmda" in printed


def test_runs_are_loaded_and_counted(tmp_path: Path) -> None:
    found, printed = run("load_runs", tmp_path, "--runs", "12", "--rounds", "2")
    assert set(found["cases"]) == set(found["target_holds"])
    for case, figures in found["cases"].items():
        assert figures["seconds"]["lowest"] > 0
        small = figures["seconds"]["highest"] <= 20 and figures["peak_mb"]["highest"] < 2000
        assert found["target_holds"][case] is small
    assert "12 runs of 5 epochs" in printed


@pytest.mark.slow
def test_real_and_simulated_epochs_are_set_side_by_side_and_measured_once(tmp_path: Path) -> None:
    arguments = (
        "--models",
        "basic_cnn",
        "--workers",
        "1",
        "--tiles",
        "64",
        "--images",
        "512",
        "--epochs",
        "2",
    )
    command = (*arguments, "--schedulers", "eager", "lws", "--folder", str(tmp_path / "study"))
    found, printed = run("fidelity", tmp_path, *command, "--markdown", str(tmp_path / "table.md"))
    assert [(row["scheduler"], row["tile"]) for row in found["rows"]] == [("eager", 64), ("lws", 64)]
    for row in found["rows"]:
        assert row["simulated_s"] > 0
        assert row["error"] == pytest.approx(row["simulated_s"] / row["real_s"]["median"] - 1)
        assert len(row["real_s"]["values"]) == 2
    assert "median error" in printed
    assert (tmp_path / "table.md").read_text().count("| basic_cnn | 1 | 64 |") == 2
    again, _ = run("fidelity", tmp_path, *command)
    assert again["rows"] == found["rows"]
