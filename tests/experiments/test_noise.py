"""The noise floor of A/A experiments."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import load_runs, noise, table
from experiments.noise import NoiseError, examine, floor
from tests.experiments.synthetic_runs import write_run

MACHINE = {"cpu": "a processor", "processors": 4, "gpus": []}


def a_a(folder: Path, sides: dict[str, list[float]], **changes: Any) -> Path:
    """Runs of one configuration whose epoch takes these joules, under these names."""
    for label, joules in sides.items():
        for repeat, value in enumerate(joules, start=1):
            run_dir = write_run(
                folder,
                seconds=(2.0,),
                joules=(value,),
                accuracies=(0.5,),
                changes={"label": label, "disturbed": None} | changes,
                tasks=False,
                power=False,
                label=label,
                repeat=repeat,
            )
            environment = json.loads((run_dir / "environment.json").read_text())
            (run_dir / "environment.json").write_text(json.dumps(environment | MACHINE))
    return folder


def test_the_floor_of_single_runs_is_the_quantile_over_all_pairs_of_values() -> None:
    values = np.array([100.0, 101.0, 99.0, 104.0, 100.5, 98.0])
    pairs = np.array([abs(a / b - 1.0) for a, b in itertools.product(values, values)])
    found = floor(values, repeats=1)
    assert np.isclose(pairs, found).any()
    assert np.mean(pairs < found - 1e-9) <= 0.95 <= np.mean(pairs <= found + 1e-9)


def test_the_floor_of_many_repeats_falls_as_the_spread_of_a_median_does() -> None:
    """The median of n normal values spreads by sqrt(pi / 2n) sigma; the difference of two by sqrt(2) more."""
    values = np.random.default_rng(1).normal(100.0, 1.0, 4000)
    expected = 1.96 * np.sqrt(2) * np.sqrt(np.pi / (2 * 101)) / 100
    assert floor(values, repeats=101) == pytest.approx(expected, rel=0.05)
    assert floor(np.full(10, 7.0), repeats=5) == 0.0


def test_an_a_a_experiment_gives_a_floor_that_the_table_prints_with_its_number_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = a_a(tmp_path / "a_a", {"a": [100.0, 102.0, 98.0, 101.0], "b": [100.0, 99.0, 103.0, 100.0]})
    path = tmp_path / "noise.json"
    assert noise.main([str(runs), "--file", str(path)]) == 0
    said = capsys.readouterr().out
    assert "A and B differ by 0.5 %" in said, "medians 100.5 and 100"
    (found,) = noise.read(path)
    assert (found.repeats, sorted(found.values["joules_per_epoch"])[0]) == (4, 98.0)
    assert found.seen["seconds_per_epoch"] == 0.0

    monkeypatch.setattr(noise, "default_path", lambda: path)
    compared = a_a(tmp_path / "compared", {"x": [90.0, 91.0], "y": [100.0]})
    assert table.main([str(compared)]) == 0
    least = found.least_effect("joules_per_epoch", 3)
    assert least is not None
    assert f"Noise floor: medians of 3 runs that differ by less than {100 * least:.2g} % in joules" in (
        capsys.readouterr().out
    )
    monkeypatch.setitem(MACHINE, "cpu", "another processor")
    elsewhere = a_a(tmp_path / "elsewhere", {"x": [90.0]})
    assert table.main([str(elsewhere)]) == 0
    assert "Noise floor" not in capsys.readouterr().out, "each machine has its own"


def test_a_second_experiment_of_the_same_kind_takes_the_place_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "noise.json"
    for number, spread in enumerate((1.0, 5.0)):
        values = [100.0, 100.0 + spread, 100.0 - spread]
        noise.keep(examine(load_runs(a_a(tmp_path / str(number), {"a": values, "b": values}))), path)
    (found,) = noise.read(path)
    assert max(found.values["joules_per_epoch"]) == 105.0


@pytest.mark.parametrize(
    ("sides", "changes", "why"),
    [
        ({"a": [1.0, 1.0, 1.0]}, {}, "3 finished runs under the names a: an A/A experiment has two"),
        ({"a": [1.0, 1.0], "b": [1.0, 1.0]}, {}, "2 finished runs of a name: a noise floor takes at least 3"),
        ({"a": [1.0] * 3, "b": [1.0] * 3}, {"simulated": True}, "a simulation has no noise"),
        ({"a": [1.0] * 3, "b": [1.0] * 3}, {"status": "failed"}, "0 finished runs under the names none"),
    ],
)
def test_runs_that_are_no_a_a_experiment_are_refused(
    tmp_path: Path, sides: dict[str, list[float]], changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(NoiseError, match=why):
        examine(load_runs(a_a(tmp_path, sides, **changes)))


def test_two_configurations_are_no_a_a_experiment(tmp_path: Path) -> None:
    a_a(tmp_path, {"a": [1.0] * 3, "b": [1.0] * 3})
    config = next(tmp_path.rglob("config.yaml"))
    config.write_text(config.read_text().replace("workers: null", "workers: 1"))
    with pytest.raises(NoiseError, match="differ in more than their names"):
        examine(load_runs(tmp_path))
