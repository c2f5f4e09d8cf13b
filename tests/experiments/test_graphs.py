"""The described task graphs: their tasks and order, against closed forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dahl.starpu.dependencies import dependencies
from experiments.graphs import (
    Cholesky,
    ForkJoin,
    GraphDescription,
    GraphError,
    GraphTask,
    Layered,
    Lu,
    Recorded,
    TaskKind,
)

ALL = [Cholesky(tiles=4), Lu(tiles=3), ForkJoin(phases=2, width=10), Layered(layers=3, width=5)]


def names(graph: GraphDescription) -> list[str]:
    return [graph.kinds[task.kind].name for tasks, _ in graph.parts for task in tasks]


def levels(graph: GraphDescription) -> list[int]:
    """Of each task of the first part, the number of tasks on the longest way to it."""
    tasks = graph.parts[0][0]
    found = [1] * len(tasks)
    for t, u in dependencies([task.accesses for task in tasks]).within:
        found[u] = max(found[u], found[t] + 1)
    return found


@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_a_cholesky_factorisation_has_so_many_tasks_of_each_kind(tiles: int) -> None:
    found = names(Cholesky(tiles=tiles).describe())
    pairs = tiles * (tiles - 1) // 2
    assert [found.count(name) for name in ("potrf", "trsm", "syrk", "gemm")] == [
        tiles,
        pairs,
        pairs,
        tiles * (tiles - 1) * (tiles - 2) // 6,
    ]


def test_a_factorisation_takes_a_third_of_a_cube_of_flops() -> None:
    """n^3/3 for Cholesky and 2 n^3/3 for LU, up to terms of lower order in the number of tiles."""
    for workload, share in ((Cholesky(tiles=20, tile_size=8), 1 / 3), (Lu(tiles=20, tile_size=8), 2 / 3)):
        graph = workload.describe()
        flops = sum(graph.kinds[task.kind].flops for task in graph.parts[0][0])
        assert flops == pytest.approx(share * 160**3, rel=0.01)


def test_the_longest_way_of_a_cholesky_factorisation_is_potrf_trsm_syrk_again_and_again() -> None:
    for tiles in (1, 2, 6):
        assert max(levels(Cholesky(tiles=tiles).describe())) == 3 * (tiles - 1) + 1


def test_an_lu_factorisation_has_so_many_tasks() -> None:
    found = names(Lu(tiles=4).describe())
    assert [found.count(name) for name in ("getrf", "trsm", "gemm")] == [4, 12, 9 + 4 + 1]
    assert max(levels(Lu(tiles=4).describe())) == 3 * 3 + 1


def test_a_fork_waits_for_the_join_before_it() -> None:
    assert levels(ForkJoin(phases=2, width=3).describe()) == [1, 1, 1, 2, 3, 3, 3, 4]


def test_a_layer_reads_from_the_layer_before_it() -> None:
    graph = Layered(layers=5, width=7, edge_probability=0.3).describe()
    assert levels(graph) == [layer + 1 for layer in range(5) for _ in range(7)]


def test_layers_are_drawn_from_the_seed() -> None:
    assert Layered(seed=3).describe() == Layered(seed=3).describe()
    assert Layered(seed=3).describe() != Layered(seed=4).describe()


@pytest.mark.parametrize("workload", ALL, ids=lambda workload: type(workload).__name__)
def test_a_graph_survives_json(workload: Any) -> None:
    graph = workload.describe()
    assert GraphDescription.from_json(json.loads(json.dumps(graph.to_json()))) == graph


def test_a_recorded_graph_is_read_from_its_file(tmp_path: Path) -> None:
    graph = Cholesky(tiles=3).describe()
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"graph": graph.to_json()}))
    assert Recorded(file=str(path)).describe() == graph


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("[1]", "holds no graph"),
        ('{"graph": {"kinds": []}}', "holds no graph"),
        ('{"graph": {"kinds": [], "data_bytes": [], "parts": []}}', "parts of at least one task"),
    ],
)
def test_a_file_without_a_graph_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "graph.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(GraphError, match=message):
        Recorded(file=str(path)).describe()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cholesky(tiles=0), "workload.tiles must be a whole number of at least 1, got 0"),
        (lambda: Lu(tile_size=True), "workload.tile_size must be a whole number"),
        (lambda: ForkJoin(width=2.5), "workload.width must be a whole number of at least 1, got 2.5"),
        (lambda: Layered(edge_probability=1.5), "workload.edge_probability must be from 0 to 1, got 1.5"),
        (lambda: Layered(mean_mflop=0.0), "workload.mean_mflop must be above 0, got 0"),
        (lambda: TaskKind("t", "fft", 1.0, 1.0), "kind must be one of conv, gemm, memory, got 'fft'"),
        (lambda: TaskKind("t", "gemm", -1.0, 1.0), "flops must be 0 or more, got -1"),
        (lambda: TaskKind("t", "gemm", 1.0, 1.0, ("fpga",)), "arches must be cpu and/or cuda"),
        (
            lambda: GraphDescription(
                (TaskKind("t", "gemm", 1.0, 1.0),), (4,), (((GraphTask(0, ((1, "r"),)),), 1),)
            ),
            "accesses data 1 as 'r'; there are 1",
        ),
    ],
)
def test_figures_that_make_no_graph_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        make()


def test_a_task_reads_no_more_than_starpu_gives_it_at_once() -> None:
    graph = Layered(layers=4, width=40, edge_probability=0.9).describe()
    assert max(len(task.accesses) for task in graph.parts[0][0]) <= 8
    assert np.mean([len(task.accesses) for task in graph.parts[0][0][40:]]) == 7
