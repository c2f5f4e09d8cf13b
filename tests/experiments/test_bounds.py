"""What a run's graph says of the least joules, against closed forms; and the command on other graphs than training."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from experiments.bounds import EpochWork, read_work
from experiments.graphs import Cholesky, GraphError
from experiments.pareto import composed
from experiments.platform import SimulatedNode
from experiments.validation import CHECKOUT, CONFIGS, ConfigError
from experiments.workload import check_classes, load_graph
from schedulers.bounds import BoundError, Graph

CHAIN = EpochWork(
    classes=("core", "card"),
    units=(2, 1),
    static_w=10.0,
    kinds=("a",),
    length_s=((4.0, 1.0),),
    energy_j=((1.0, 3.0),),
    graphs=(Graph([0, 0], [(0, 1)], [(1, 0)], 5),),
    apart=(False, True),
)
"""Ten tasks in a row: 10 s on the card; a core saves 2 J of a task, and 3 s cost 30."""


def test_the_least_joules_of_a_chain_are_those_of_its_fast_class() -> None:
    assert CHAIN.least_s == pytest.approx(10.0, rel=1e-5)
    assert CHAIN.least_j == pytest.approx(10 * 3 + 10 * 10.0, rel=1e-5)


def test_controllable_joules_are_those_above_the_idle_machine_over_the_least_makespan() -> None:
    assert CHAIN.controllable_j(160.0) == pytest.approx(60.0, rel=1e-4)
    ratios = CHAIN.ratios(160.0)
    assert ratios["bound_ratio"] == pytest.approx(160 / 130, rel=1e-4)
    assert ratios["bound_ratio_controllable"] == pytest.approx(2.0, rel=1e-3)


def test_joules_that_are_not_known_have_no_ratio() -> None:
    assert set(CHAIN.ratios(None).values()) == {None}


def test_a_deadline_that_no_schedule_keeps_is_refused() -> None:
    with pytest.raises(BoundError, match="before the least makespan"):
        CHAIN.least(9.0)


def test_the_front_of_a_chain_that_cannot_be_cheaper_is_one_point() -> None:
    (point,) = CHAIN.front(100.0)
    assert (point.seconds, point.energy_j) == (pytest.approx(10.0, rel=1e-4), pytest.approx(130.0, rel=1e-4))


def test_work_survives_json_and_what_cannot_run_stays_unknown() -> None:
    one_class = EpochWork(
        ("core", "card"),
        (1, 1),
        1.0,
        ("a",),
        ((1.0, math.nan),),
        ((1.0, math.nan),),
        CHAIN.graphs,
        (False, True),
    )
    for work in (CHAIN, one_class):
        record = json.dumps(work.to_json()).replace("NaN", "null")
        again = EpochWork.from_json(json.loads(record))
        assert json.dumps(again.to_json()).replace("NaN", "null") == record
        assert again.least_j == pytest.approx(work.least_j)


def run(tmp_path: Path, name: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    command = [
        sys.executable,
        "-m",
        "experiments.run",
        "epochs=1",
        f"output={tmp_path}",
        f"name={name}",
        *arguments,
    ]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=200, check=False)
    folders = sorted((tmp_path / name).glob("*")) if (tmp_path / name).exists() else [tmp_path]
    return done, folders[-1]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


SMALL = ("workload=cholesky", "workload.tiles=4", "platform=cpu8_gpu2", "scheduler=dmdas")


@pytest.fixture(scope="module")
def cholesky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    done, folder = run(tmp_path_factory.mktemp("runs"), "cholesky", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_simulated_run_is_not_below_the_bound_and_says_how_far_above(cholesky: Path) -> None:
    found, work = summary(cholesky), read_work(cholesky)
    assert found["seconds_per_epoch"] > work.least_s
    assert found["joules_per_epoch"] > work.least(found["seconds_per_epoch"]).energy_j
    assert found["bound_ratio"] == pytest.approx(found["joules_per_epoch"] / work.least_j)
    assert found["bound_ratio_controllable"] > found["bound_ratio"] > 1
    row = pq.read_table(cholesky / "epochs.parquet").to_pylist()[0]
    assert row["bound_ratio"] == pytest.approx(found["bound_ratio"])


def test_its_graph_has_the_tasks_that_ran(cholesky: Path) -> None:
    tasks = pq.read_table(cholesky / "tasks.parquet").to_pandas()
    (graph,) = read_work(cholesky).graphs
    assert len(graph) == len(tasks) == 20
    assert sorted(set(tasks["codelet"])) == ["gemm", "potrf", "syrk", "trsm"]


def test_a_recorded_graph_runs_as_the_one_it_is_of(cholesky: Path, tmp_path: Path) -> None:
    done, folder = run(
        tmp_path, "again", "workload=recorded", f"workload.file={cholesky}/graph.json", *SMALL[2:]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for key in ("joules_per_epoch", "seconds_per_epoch", "bound_ratio"):
        assert summary(folder)[key] == pytest.approx(summary(cholesky)[key], rel=1e-9)


def test_estimates_that_are_wrong_move_what_is_predicted_and_not_what_tasks_take(
    cholesky: Path, tmp_path: Path
) -> None:
    done, folder = run(tmp_path, "biased", *SMALL, "+estimates.bias.card=3.0")
    assert done.returncode == 0, done.stdout + done.stderr
    means = []
    for where in (cholesky, folder):
        tasks = pq.read_table(where / "tasks.parquet").to_pandas()
        tasks["length_s"] = tasks["end_s"] - tasks["start_s"]
        gemms = tasks[(tasks["worker"] < 2) & (tasks["codelet"] == "gemm")]
        means.append(gemms[["predicted_s", "predicted_j", "length_s"]].mean())
    assert means[1]["predicted_s"] == pytest.approx(3 * means[0]["predicted_s"])
    assert means[1]["predicted_j"] == pytest.approx(3 * means[0]["predicted_j"])
    assert means[1]["length_s"] == pytest.approx(means[0]["length_s"], rel=0.2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("workload=cholesky",), "runs on simulated nodes only: platform=NAME"),
        ((*SMALL, "estimates.noise=-1"), "estimates.noise=-1: must be a number, 0 or more"),
        ((*SMALL, "+estimates.bias.card=0"), "must be factors above 0 by worker class"),
        ((*SMALL, "+estimates.foo=1"), "unknown key 'estimates.foo'; there are: bias, noise, seed"),
        ((*SMALL, "bound=1"), "bound=1: must be true or false"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_has_started(
    overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(overrides)


def test_a_bias_of_a_class_that_there_is_not_is_refused() -> None:
    check_classes("estimates.bias", {"core": 2.0}, node())
    with pytest.raises(ValueError, match=r"estimates\.bias names foo; there are: core, card"):
        check_classes("estimates.bias", {"foo": 2.0}, node())


def test_a_node_without_a_worker_for_some_codelet_is_refused(tmp_path: Path) -> None:
    graph = Cholesky(tiles=2).describe().to_json()
    graph["kinds"][0]["arches"] = ["cuda"]
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"graph": graph}))
    config = {"_target_": "experiments.graphs.Recorded", "file": str(path)}
    assert load_graph(config, node()) is not None
    with pytest.raises(GraphError, match="potrf runs on cuda only; platform cpu8_gpu2 has no such worker"):
        load_graph(config, replace(node(), gpu={}))


def test_a_graph_without_kernels_is_refused_natively() -> None:
    with pytest.raises(GraphError, match="runs on simulated nodes"):
        load_graph({"_target_": "experiments.graphs.Cholesky"}, None)


def node() -> SimulatedNode:
    fields = yaml.safe_load((CONFIGS / "platform" / "cpu8_gpu2.yaml").read_text())
    return SimulatedNode(**{key: fields[key] for key in fields if key not in ("_target_", "simulated")})
