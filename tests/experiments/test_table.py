"""The table of schedulers by platforms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.progress import NOTHING
from experiments.summary import summarise
from experiments.table import main, markdown
from tests.experiments.conftest import CHOICES, configuration


def summary(scheduler: str, platform: str = "nine_cores", **changes: Any) -> dict[str, Any]:
    """A simulated run of one epoch of 12.5 J and 0.25 s, as a trial would record it."""
    config = configuration(choices=CHOICES | {"scheduler": scheduler, "platform": platform})
    epochs = [{"images": 10, "seconds": 0.25, "gross_j": 12.5, "net_j": 2.0, "quality": "simulated"}]
    return summarise(config, epochs, status="finished", simulated=True) | changes


def cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_rows_are_schedulers_and_columns_are_joules_and_seconds_of_each_platform() -> None:
    found = [
        summary("dmda"),
        summary("eager", joules_per_epoch=1234.0, seconds_per_epoch=0.03217),
        summary("eager", "two_cards", joules_per_epoch=0.5),
    ]
    assert cells(markdown(found)) == [
        [
            "scheduler",
            "nine_cores: J (simulated)",
            "nine_cores: s",
            "two_cards: J (simulated)",
            "two_cards: s",
        ],
        ["---", "---:", "---:", "---:", "---:"],
        ["`dmda`", "12.5", "0.250", NOTHING, NOTHING],
        ["`eager`", "1,234.0", "0.0322", "0.500", "0.250"],
    ]


def test_simulated_numbers_are_called_so_and_measured_ones_are_not() -> None:
    assert "no machine was measured" in markdown([summary("eager")])
    measured = markdown([summary("eager", simulated=False, energy_quality="measured")])
    assert "imulated" not in measured
    assert "J (measured)" in measured


def test_a_column_is_called_by_the_weakest_quality_in_it() -> None:
    found = [summary("eager", energy_quality="measured"), summary("dmda", energy_quality="estimated")]
    assert cells(markdown(found))[0][1] == "nine_cores: J (estimated)"


def test_a_run_that_failed_is_no_number() -> None:
    failed = summary("eager", status="failed", joules_per_epoch=1.0)
    assert cells(markdown([failed, summary("dmda")]))[3] == ["`eager`", "failed", NOTHING]


def test_joules_that_are_unknown_are_no_number() -> None:
    assert cells(markdown([summary("eager", joules_per_epoch=None)]))[2] == ["`eager`", NOTHING, "0.250"]


def test_several_runs_of_a_cell_are_shown_by_their_median() -> None:
    text = markdown([summary("eager", joules_per_epoch=joules) for joules in (1.0, 9.0, 2.0)])
    assert cells(text)[2][1] == "2.00"
    assert "Medians of up to 3 runs." in text


def test_different_models_are_never_in_one_column() -> None:
    head = cells(markdown([summary("eager"), summary("eager", model="lenet")]))[0]
    assert head[1::2] == ["nine_cores, basic_cnn: J (simulated)", "nine_cores, lenet: J (simulated)"]


def test_the_command_reads_what_lies_under_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("eager", "dmda"):
        (tmp_path / "nodes" / name).mkdir(parents=True)
        (tmp_path / "nodes" / name / "summary.json").write_text(json.dumps(summary(name)))
    assert main([str(tmp_path)]) == 0
    assert [row[0] for row in cells(capsys.readouterr().out)[2:]] == ["`dmda`", "`eager`"]


def test_a_folder_without_runs_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert f"error: {tmp_path}: no run's summary.json" in capsys.readouterr().err


def test_a_record_of_an_earlier_version_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({key: value for key, value in summary("eager").items() if key != "platform"}))
    assert main([str(tmp_path)]) == 2
    assert f"error: {path}: names no platform" in capsys.readouterr().err


def test_a_simulation_that_was_repeated_counts_once() -> None:
    text = markdown([summary("eager") for _ in range(3)])
    assert "Medians" not in text
    assert "it counts as one run and has no spread" in text
    measured = markdown([summary("eager", simulated=False, energy_quality="measured") for _ in range(3)])
    assert "Medians of up to 3 runs." in measured
