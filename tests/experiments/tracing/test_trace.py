"""Traces for viewers: what stands in each format."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments import Run, records
from experiments.accesses import FILE_NAME
from experiments.runs import RunsError
from experiments.trace import main
from experiments.tracing.order import Part, read_parts, task_pairs
from tests.experiments.synthetic_runs import EPOCH_J, EPOCH_S, WORKERS, write_run

ACCESSES = {
    "parts": [{"times": 1, "tasks": [["conv2d", [[0, "r"], [1, "w"]]], ["sgd_2d", [[1, "r"], [2, "rw"]]]]}]
}
"""Of an epoch of `write_run`: the second task reads what the first one writes."""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Two epochs of 2 s and 60 J, each of two tasks of 1 s, the second of which waits for the first."""
    folder = write_run(tmp_path / "runs")
    records.write_json(folder / FILE_NAME, ACCESSES)
    return folder


def events(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The events of a Chrome trace by phase."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in json.loads(path.read_text())["traceEvents"]:
        found[event["ph"]].append(event)
    return found


def test_perfetto_has_a_slice_for_each_task_on_the_track_of_its_worker(run_dir: Path, tmp_path: Path) -> None:
    assert main([str(run_dir), "--perfetto", str(tmp_path / "x.json")]) == 0
    found = events(tmp_path / "x.json")
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in found["M"] if e["name"] == "thread_name"}
    tasks = [e for e in found["X"] if e["cat"] == "task"]
    assert [(names[e["pid"], e["tid"]], e["name"], e["ts"], e["dur"]) for e in tasks] == [
        ("CPU 0", "conv2d", 0.0, 1e6),
        ("CPU 1", "sgd_2d", 1e6, 1e6),
        ("CPU 0", "conv2d", 2e6, 1e6),
        ("CPU 1", "sgd_2d", 3e6, 1e6),
    ]
    assert tasks[1]["args"] | {"predicted_s": 0, "predicted_j": 0} == {
        "task": 1, "tile": 0, "epoch": 1, "window": "epoch", "submit_s": 0.0, "ready_s": 1.0, "predicted_s": 0,
        "predicted_j": 0,
    }  # fmt: skip
    assert tasks[0]["args"]["predicted_s"] is None, "what was not predicted is no number"
    windows = [(e["name"], e["ts"], e["dur"]) for e in found["X"] if e["cat"] == "window"]
    assert windows == [("epoch 1", 0.0, 2e6), ("run", 0.0, 4e6), ("epoch 2", 2e6, 2e6)]


def test_perfetto_has_a_flow_for_each_dependency_from_slice_to_slice(run_dir: Path, tmp_path: Path) -> None:
    main([str(run_dir), "--perfetto", str(tmp_path / "x.json")])
    found = events(tmp_path / "x.json")
    assert [(e["id"], e["tid"], e["ts"]) for e in found["s"]] == [(0, 1, 1e6), (1, 1, 3e6)]
    assert [(e["id"], e["tid"], e["ts"]) for e in found["f"]] == [(0, 2, 1e6), (1, 2, 3e6)]
    assert {e["bp"] for e in found["f"]} == {"e"}, "it ends at the slice around its time, not at the next one"


def test_perfetto_has_watts_whose_integral_is_the_joules(run_dir: Path, tmp_path: Path) -> None:
    main([str(run_dir), "--perfetto", str(tmp_path / "x.json")])
    found = events(tmp_path / "x.json")
    total = [(e["ts"] * 1e-6, e["args"]["W"]) for e in found["C"] if e["name"] == "all (W)"]
    (end,) = [e["ts"] * 1e-6 for e in found["i"] if e["name"].startswith("all")]
    edges = [at for at, _ in total] + [end]
    joules = sum(watts * (edges[n + 1] - edges[n]) for n, (_, watts) in enumerate(total))
    assert joules == pytest.approx(2 * EPOCH_J)
    assert end == pytest.approx(2 * EPOCH_S)
    names = [e["args"]["name"] for e in found["M"] if e["name"] == "process_name"]
    assert "power (estimated)" in names


def paje_lines(path: Path) -> tuple[dict[str, tuple[str, list[str]]], list[list[str]]]:
    """The events that the header defines, by number, with their fields; the lines after it, in their parts."""
    text = path.read_text()
    defined = {
        number: (name, re.findall(r"% (\w+) ", fields))
        for name, number, fields in re.findall(r"%EventDef (\w+) (\d+)\n(.*?)%EndEventDef", text, re.DOTALL)
    }
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    return defined, [re.findall(r'"[^"]*"|\S+', line) for line in lines]


def test_paje_has_states_links_and_watts_in_the_order_of_time(run_dir: Path, tmp_path: Path) -> None:
    assert main([str(run_dir), "--paje", str(tmp_path / "x.paje")]) == 0
    defined, lines = paje_lines(tmp_path / "x.paje")
    rows = [(defined[line[0]][0], dict(zip(defined[line[0]][1], line[1:], strict=True))) for line in lines]
    times = [float(row["Time"]) for _, row in rows if "Time" in row]
    assert times == sorted(times)
    states = [(row["Time"], row["Container"], row["Value"]) for name, row in rows if name == "PajeSetState"]
    assert states[len(WORKERS) :][:3] == [
        ("0.000000000", "w0", '"codelet conv2d"'),
        ("1.000000000", "w0", "idle"),
        ("1.000000000", "w1", '"codelet sgd_2d"'),
    ]
    links = [(name, row["Time"], row["Key"]) for name, row in rows if name.endswith("Link")]
    assert links == [
        ("PajeStartLink", "1.000000000", "0"),
        ("PajeEndLink", "1.000000000", "0"),
        ("PajeStartLink", "3.000000000", "1"),
        ("PajeEndLink", "3.000000000", "1"),
    ]
    assert {row["Value"] for name, row in rows if name == "PajeSetVariable"} == {
        "10.000000",
        "20.000000",
        "30.000000",
    }
    assert [row["Name"] for name, row in rows if name == "PajeDefineVariableType"] == [
        '"model:base (W, estimated)"',
        '"model:cpu (W, estimated)"',
        '"all (W, estimated)"',
    ]


PAJENG: Any = shutil.which("pj_validate") or shutil.which("pj_dump")


@pytest.mark.skipif(PAJENG is None, reason="no PajeNG here (apt install pajeng)")
def test_pajeng_reads_the_paje_trace(run_dir: Path, tmp_path: Path) -> None:
    main([str(run_dir), "--paje", str(tmp_path / "x.paje")])
    done = subprocess.run(
        [PAJENG, tmp_path / "x.paje"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    if PAJENG.endswith("pj_dump"):
        kinds = [line.split(",")[0] for line in done.stdout.splitlines()]
        assert kinds.count("Link") == 2
        seconds = [
            line.split(", ") for line in done.stdout.splitlines() if "codelet" in line or "conv2d" in line
        ]
        assert sum(float(row[5]) for row in seconds if row[0] == "State" and row[-1] == "conv2d") == 2.0


def test_dot_has_a_node_for_each_task_and_an_edge_for_each_dependency(run_dir: Path, tmp_path: Path) -> None:
    record = {"parts": [{**ACCESSES["parts"][0], "times": 3}]}
    records.write_json(run_dir / FILE_NAME, record)
    assert main([str(run_dir), "--dot", str(tmp_path / "x.dot")]) == 0
    text = (tmp_path / "x.dot").read_text()
    assert re.findall(r"(\w+) \[label=\"(.*?)\"", text) == [("t0_0", "0 conv2d"), ("t0_1", "1 sgd_2d")]
    assert re.findall(r"(\w+) -> (\w+);", text) == [("t0_0", "t0_1")]
    # The next conv2d overwrites what sgd_2d reads, and the next sgd_2d works on what this one has written.
    assert re.findall(r"(\w+) -> (\w+) \[style=dashed", text) == [
        ("t0_0", "t0_0"),
        ("t0_1", "t0_0"),
        ("t0_1", "t0_1"),
    ]
    assert "2 tasks, submitted 3 times an epoch" in text


@pytest.mark.skipif(shutil.which("dot") is None, reason="no Graphviz here (apt install graphviz)")
def test_graphviz_draws_the_graph(run_dir: Path, tmp_path: Path) -> None:
    main([str(run_dir), "--dot", str(tmp_path / "x.dot")])
    done = subprocess.run(
        ["dot", "-Tsvg", tmp_path / "x.dot"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count('class="node"') == 2


def test_the_order_holds_over_repeated_graphs_and_from_one_to_the_next() -> None:
    """Each writes what the next reads: a chain through both graphs, however the tasks are sorted in the table."""
    chain = Part(("a", "b"), [[(0, "rw")], [(0, "rw")]], times=2)
    last = Part(("c",), [[(0, "r")]], times=1)
    tasks = pd.DataFrame(
        {"window": "epoch", "epoch": 1, "task": [14, 13, 12, 11, 10], "codelet": ["c", "b", "a", "b", "a"]}
    )
    assert task_pairs(tasks, [chain, last]).tolist() == [[4, 3], [3, 2], [2, 1], [1, 0]]


def test_the_graph_of_a_simulated_run_is_read_too(tmp_path: Path) -> None:
    folder = write_run(tmp_path, simulated=True, quality="simulated")
    graph = {
        "kinds": [{"name": "conv2d"}, {"name": "sgd_2d"}],
        "parts": [{"times": 4, "tasks": [[1, [[0, "rw"]]], [0, [[0, "r"]]]]}],
    }
    records.write_json(folder / records.GRAPH_NAME, {"graph": graph})
    (part,) = read_parts(Run.load(folder))
    assert (part.codelets, part.times) == (("sgd_2d", "conv2d"), 4)
    assert list(part.order.within) == [(0, 1)]


@pytest.mark.parametrize("how", ["no tasks", "no accesses", "damaged", "another graph"])
def test_a_run_without_such_a_trace_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    folder = write_run(tmp_path / "runs", tasks=how != "no tasks")
    said = {
        "no tasks": "no tasks.parquet: run it with trace=true",
        "no accesses": "has neither accesses.json nor graph.json",
        "damaged": "accesses.json cannot be read (KeyError",
        "another graph": "epoch 1 has 2 tasks that are not the 4 of the recorded graphs",
    }
    if how == "damaged":
        records.write_json(folder / FILE_NAME, {})
    if how == "another graph":
        records.write_json(folder / FILE_NAME, {"parts": ACCESSES["parts"] * 2})
    assert main([str(folder), "--perfetto", str(tmp_path / "x.json")]) == 2
    assert said[how] in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
    if how == "another graph":
        assert main([str(folder), "--perfetto", str(tmp_path / "x.json"), "--without-dependencies"]) == 0
        assert not events(tmp_path / "x.json")["s"]


def test_a_folder_that_is_no_run_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--dot", str(tmp_path / "x.dot")]) == 2
    assert "holds no summary.json" in capsys.readouterr().err
    with pytest.raises(RunsError):
        Run.load(tmp_path)


def test_a_trace_without_watts_has_tasks_all_the_same(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", power=False)
    records.write_json(folder / FILE_NAME, ACCESSES)
    assert (
        main([str(folder), "--perfetto", str(tmp_path / "x.json"), "--paje", str(tmp_path / "x.paje")]) == 0
    )
    found = events(tmp_path / "x.json")
    assert not found["C"]
    assert len([e for e in found["X"] if e["cat"] == "task"]) == 4
