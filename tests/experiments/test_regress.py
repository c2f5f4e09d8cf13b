"""Runs against their baselines; the planted regressions are real trials with one thing changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import regress
from experiments.baselines import EXACT, Finding, baseline_of, compare
from experiments.runs import Run
from tests.experiments.synthetic_runs import write_run

PLANTED = Path(__file__).with_name("planted_trial.py")
RUN = "import sys; from experiments import run; run.TRIAL_COMMAND = {command!r}; sys.exit(run.main())"
TRAINING = (
    "scheduler=lws",
    "dataset=synthetic",
    "dataset.train_size=320",
    "dataset.test_size=50",
    "epochs=1",
)
SIMULATION = ("platform=cpu8_gpu2", "workload=cholesky", "workload.tiles=6", "scheduler=dmdas", "epochs=1")


def ran(way: str, overrides: tuple[str, ...], output: Path, environment: dict[str, str]) -> Path:
    """The folder of a run, named for its case, with this regression planted."""
    command = (sys.executable, str(PLANTED), way)
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(command=command), *overrides, f"output={output}", "name=case"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return output / "case"


@pytest.mark.parametrize(
    ("overrides", "regression", "said"),
    [
        (SIMULATION, "one_percent_more_joules", "moved: case: joules_per_epoch was "),
        (TRAINING, "one_weight_bit", "moved: case: weights_sha256 was "),
    ],
)
def test_a_planted_regression_is_told_and_nothing_else_is(
    overrides: tuple[str, ...],
    regression: str,
    said: str,
    environment: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    baselines = ["--baselines", str(tmp_path / "baselines")]
    first = ran("nothing", overrides, tmp_path / "first", environment)
    assert regress.main([str(first), *baselines, "--update", "--reason", "the first"]) == 0
    capsys.readouterr()
    planted = ran(regression, overrides, tmp_path / "planted", environment)
    assert regress.main([str(planted), *baselines]) == 1
    moved = [line for line in capsys.readouterr().out.splitlines() if line.startswith("moved: ")]
    assert [line[: len(said)] for line in moved] == [said]
    if regression == "one_percent_more_joules":
        was, is_ = (
            json.loads(next(folder.rglob("summary.json")).read_text())["joules_per_epoch"]
            for folder in (first, planted)
        )
        assert is_ / was == pytest.approx(1.01, rel=1e-9)


def runs(folder: Path, seconds: list[float], joules: list[float] | None = None, **changes: Any) -> list[Run]:
    """Repeats of one configuration, with these seconds and joules per epoch."""
    written = [
        write_run(
            folder / "case", seconds=(s,), joules=(j,), accuracies=(0.5,), changes=changes, repeat=number
        )
        for number, (s, j) in enumerate(zip(seconds, joules or seconds, strict=True), start=1)
    ]
    return [Run.load(path) for path in written]


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {one.quantity: one.verdict for one in findings}


def test_the_tolerance_of_a_time_is_three_times_the_baselines_own_spread(tmp_path: Path) -> None:
    before = baseline_of(runs(tmp_path / "before", [1.0, 1.1, 0.95]))
    for median_s, expected in ((1.29, "within"), (1.31, "worse"), (0.71, "within"), (0.69, "better")):
        found = compare("case", before, runs(tmp_path / str(median_s), [median_s]))
        (seconds,) = [one for one in found if one.quantity == "seconds_per_epoch"]
        assert seconds.tolerance == pytest.approx(0.3)
        assert seconds.verdict == expected
        assert seconds.is_regression == (expected == "worse")


def test_a_baseline_without_spread_still_allows_the_least_tolerance(tmp_path: Path) -> None:
    before = baseline_of(runs(tmp_path / "before", [1.0, 1.0, 1.0]))
    assert verdicts(compare("case", before, runs(tmp_path / "a", [1.04])))["seconds_per_epoch"] == "within"
    assert verdicts(compare("case", before, runs(tmp_path / "b", [1.06])))["seconds_per_epoch"] == "worse"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"disturbed": True}, "1 runs were disturbed by other work"),
        ({"energy_quality": "measured"}, "the baseline's are estimated, these measured"),
    ],
)
def test_joules_that_cannot_be_compared_are_no_regression_and_say_why(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    before = baseline_of(runs(tmp_path / "before", [1.0, 1.0, 1.0]))
    found = compare("case", before, runs(tmp_path / "now", [9.0], **changes))
    (joules,) = [one for one in found if one.quantity == "joules_per_epoch"]
    assert (joules.verdict, joules.why, joules.is_regression) == ("not compared", why, False)


def with_processor(found: list[Run], name: str) -> list[Run]:
    for run in found:
        path = run.path / "environment.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"kernels": {"llvm_cpu": name}, "cpu": name}))
    return [Run.load(run.path) for run in found]


def test_elsewhere_weights_are_not_compared_and_the_rest_has_a_tolerance(tmp_path: Path) -> None:
    before = baseline_of(
        with_processor(runs(tmp_path / "before", [1.0] * 3, loss=0.5, weights_sha256="aa"), "znver4")
    )
    near = runs(tmp_path / "near", [5.0], loss=0.505, accuracy=0.51, weights_sha256="bb")
    found = compare("case", before, with_processor(near, "skylake"))
    assert verdicts(found) == {
        "weights_sha256": "not compared",
        "accuracy": "within",
        "loss": "within",
        "joules_per_epoch": "not compared",
        "seconds_per_epoch": "not compared",
    }
    assert found[0].why == "exact on llvm_cpu znver4"
    far = runs(tmp_path / "far", [5.0], loss=0.52, accuracy=0.47, weights_sha256="bb")
    moved = compare("case", before, with_processor(far, "skylake"))
    assert [one.quantity for one in moved if one.is_regression] == ["accuracy", "loss"]
    here = compare("case", before, with_processor(near, "znver4"))
    assert [one.quantity for one in here if one.verdict == "moved"] == ["weights_sha256", "accuracy", "loss"]


def test_a_trial_that_failed_is_a_regression(tmp_path: Path) -> None:
    before = baseline_of(runs(tmp_path / "before", [1.0]))
    (finding,) = compare(
        "case", before, runs(tmp_path / "now", [1.0], status="failed", error="killed by SIGSEGV")
    )
    assert finding.is_regression
    assert "killed by SIGSEGV" in str(finding.now)


def test_every_case_has_a_baseline_with_a_reason_and_nothing_else_has() -> None:
    stored = {path.stem: json.loads(path.read_text()) for path in regress.BASELINES.glob("*.json")}
    assert set(stored) == set(regress.cases())
    for baseline in stored.values():
        assert baseline["reason"]
        assert set(baseline["exact"]) == set(EXACT[baseline["simulated"]])
        assert None not in baseline["exact"].values()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--update"], 'error: --update needs --reason "...": why do the baselines move?'),
        (["--case", "nothing"], "error: unknown case 'nothing'; there are: simulated_dmdas, "),
        (["/nowhere"], "error: /nowhere: there is no such folder"),
    ],
)
def test_a_command_that_cannot_be_done_says_so(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert regress.main(arguments) == 2
    assert capsys.readouterr().err.startswith(line)


def test_runs_without_a_baseline_name_the_way_to_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs(tmp_path, [1.0])
    assert regress.main([str(tmp_path), "--baselines", str(tmp_path / "none")]) == 2
    assert 'case.json is not there; --update --reason "..." makes it' in capsys.readouterr().err
