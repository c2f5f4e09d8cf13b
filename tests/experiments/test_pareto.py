"""The sweep of policies: what it is to run, and one small sweep."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.pareto import check_bounds, composed, load_sweep, main
from experiments.pareto_table import merged, row
from experiments.validation import CHECKOUT, ConfigError
from schedulers.bounds import BoundError
from tests.experiments.test_bounds import CHAIN


def pareto(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.pareto", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=280, check=False)


def test_a_sweep_is_every_combination_of_the_values() -> None:
    sweep = load_sweep(
        ["ours={edp: {energy_exponent: [1.0, 2.0], delay_exponent: [1.0]}}", "starpu={names: [dmda]}"]
    )
    assert [label for label, _, _ in sweep.trials] == [
        "edp energy_exponent=1 delay_exponent=1",
        "edp energy_exponent=2 delay_exponent=1",
        "dmda",
    ]
    assert sweep.trials[2] == ("dmda", "starpu", ("scheduler=starpu", "scheduler.name=dmda"))


def test_the_sweep_of_the_file_has_dmdas_with_several_gammas_and_both_sides() -> None:
    sweep = load_sweep([])
    assert len({label for label, _, _ in sweep.trials if label.startswith("dmdas gamma")}) >= 5
    assert {side for _, side, _ in sweep.trials} == {"ours", "starpu"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("foo=1", "unknown key 'pareto.foo'; there are: ours, starpu, "),
        ("slowdown=0.5", "pareto.slowdown=0.5: must be a number, at least 1"),
        ("deadline_s=-1", "pareto.deadline_s=-1: must be a number"),
        ("cap_w=0", "pareto.cap_w=0: must be a number"),
        ("seeds=[]", r"pareto.seeds=\[\]: must be a list of whole numbers"),
        ("ours=edp", "pareto.ours=edp: must be policies with lists"),
        ("ours={edp: {delay_exponent: 1}}", "pareto.ours.edp=.*: must be lists of values by parameter"),
    ],
)
def test_what_cannot_be_swept_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_sweep([override])


SMALL = (
    "platform=cpu8_gpu2", "workload=fork_join", "workload.phases=2", "workload.width=3",
    "pareto.ours={energy_greedy: {max_slowdown: [1.5]}}", "pareto.starpu={names: [dmda]}",
)  # fmt: skip


@pytest.mark.slow
def test_a_sweep_leaves_its_table_its_front_and_its_figure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    done = pareto(*SMALL, f"output={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "pareto").iterdir()
    record = json.loads((folder / "pareto.json").read_text())
    assert [point["label"] for point in record["points"]] == ["energy_greedy max_slowdown=1.5", "dmda"]
    assert record["front"]
    for point in record["points"]:
        assert point["joules"] > record["comparison"]["bound_j"] > 0
    assert (folder / "pareto.png").stat().st_size > 10_000
    assert (folder / "pareto.pdf").read_bytes().startswith(b"%PDF")
    assert main(["--table", str(tmp_path)]) == 0
    assert "| cpu8_gpu2 · fork_join, seed 0 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("deadline_s=9.0", "deadline_s=9 is before the least makespan of these graphs, 10 s"),
        ("cap_w=10.2", "cap_w=10.2 rules out kind 0"),
    ],
)
def test_a_deadline_or_cap_that_no_schedule_keeps_is_refused(override: str, message: str) -> None:
    with pytest.raises(BoundError, match=message):
        check_bounds(CHAIN, load_sweep([override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("deadline_s=1e-6", "pareto.deadline_s=1e-06 is before the least makespan of these graphs, "),
        ("cap_w=1.0", "pareto.cap_w=1 rules out kind 0 of the tasks, which alone takes the machine to "),
    ],
)
def test_a_limit_that_no_schedule_keeps_stops_the_sweep_before_its_first_trial(
    override: str, message: str, tmp_path: Path
) -> None:
    done = pareto(*SMALL, f"pareto.{override}", f"output={tmp_path}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.endswith("; no policy was run\n")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_machine_that_is_not_simulated_has_no_bound() -> None:
    with pytest.raises(ConfigError, match="give a simulated platform=NAME"):
        composed(["platform=host"])


def test_an_unknown_policy_is_refused_before_any_runs(tmp_path: Path) -> None:
    done = pareto(*SMALL[:4], "pareto.ours={foo: {}}", f"output={tmp_path}")
    assert done.returncode == 2
    assert "unknown scheduler 'foo'; there are: " in done.stderr
    assert not list(tmp_path.rglob("summary.json"))


def test_folders_without_a_sweep_have_no_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--table", str(tmp_path)]) == 2
    assert "no pareto.json under these folders" in capsys.readouterr().err


def left_behind(
    folder: Path, points: list[dict[str, object]], name: str = "n", deadline_s: float = 12.0
) -> Path:
    """What a sweep of the ten tasks in a row leaves; its least makespan is that of its own points."""
    folder.mkdir(parents=True)
    record = {"name": name, "seed": 0, "points": points, "comparison": {"deadline_s": deadline_s}}
    (folder / "pareto.json").write_text(json.dumps(record))
    (folder / "pareto_graph.json").write_text(json.dumps({"work": CHAIN.to_json()}))
    return folder / "pareto.json"


def point(label: str, side: str, seconds: float, joules: float) -> dict[str, object]:
    return {"label": label, "side": side, "seconds": seconds, "joules": joules, "error": None}


def test_sweeps_of_the_same_tasks_are_one_row_by_one_deadline(tmp_path: Path) -> None:
    """1.2 times the 10 s of a is 12 s: b, which had 13.2 s by its own sweep, comes too late."""
    paths = [
        left_behind(tmp_path / "1", [point("a", "ours", 10.0, 150.0)]),
        left_behind(tmp_path / "2", [point("b", "starpu", 12.5, 140.0)], deadline_s=15.0),
        left_behind(tmp_path / "3", [point("c", "ours", 10.5, 131.0)], name="another"),
    ]
    both, other = merged(paths)
    assert [one.label for one in both.points] == ["a", "b"]
    assert (both.compared.ours.label, both.compared.starpu.label) == ("a", None)
    assert [one.label for one in other.points] == ["c"]


def test_of_a_policy_that_two_sweeps_ran_the_later_one_counts(tmp_path: Path) -> None:
    paths = [left_behind(tmp_path / str(i), [point("a", "ours", 10.0, 150.0 + i)]) for i in range(2)]
    (both,) = merged(paths)
    assert [one.joules for one in both.points] == [151.0]


def test_the_table_says_what_is_missed(tmp_path: Path) -> None:
    """The bound is 130 J by 12 s, of which placement can change 30: 150 J is 50 / 30 of it, 131 J 31 / 30."""
    missing = left_behind(
        tmp_path / "1", [point("a", "ours", 10.0, 150.0), point("b", "starpu", 10.0, 140.0)]
    )
    cells = row(merged([missing])[0])
    assert cells[5] == "1.667"
    assert cells[-1] == "bound, hypervolume"
    near = left_behind(tmp_path / "2", [point("a", "ours", 10.0, 131.0), point("b", "starpu", 10.0, 140.0)])
    cells = row(merged([near])[0])
    assert (cells[-3], cells[-1]) == ("at most 1.033", "none")
