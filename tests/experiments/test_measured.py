import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import measured, records
from experiments.measured import MeasuredFileError, TaskMeasurement

CONV = TaskMeasurement(
    operation="conv2d",
    key="conv2d/16x1x28x28",
    tile=16,
    worker_class="cpu",
    workers=2,
    kernels="abc",
    repeats=100,
    seconds=1e-3,
    seconds_low=0.9e-3,
    seconds_high=1.2e-3,
    seconds_mean=1e-3,
    watts=8.0,
    watts_low=7.8,
    watts_high=8.2,
    energy_j=8e-3,
    quality="measured",
    resolved=True,
)


def test_a_measurement_comes_back_from_the_file_and_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    record = measured.with_measurement(measured.read(path), CONV)
    record = measured.with_measurement(record, replace(CONV, tile=8, key="conv2d/8x1x28x28"))
    record = measured.with_measurement(record, replace(CONV, seconds=2e-3, watts_low=math.nan))
    records.write_json(path, record)
    found = [measured.as_measurement(task) for task in measured.read(path)["tasks"]]
    assert [(one.key, one.seconds) for one in found] == [("conv2d/8x1x28x28", 1e-3), (CONV.key, 2e-3)]
    assert math.isnan(found[1].watts_low)
    assert json.loads(path.read_text())["tasks"][1]["watts_low"] is None


def test_only_watts_of_counters_for_these_workers_and_kernels_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    record = measured.read(path)
    for other in (
        CONV,
        replace(CONV, key="relu", watts=5.0),
        replace(CONV, key="modelled", quality="estimated"),
        replace(CONV, key="other workers", workers=4),
        replace(CONV, key="other kernels", kernels="def"),
        replace(CONV, key="missing reading", watts=math.nan),
    ):
        record = measured.with_measurement(record, other)
    records.write_json(path, record)
    assert measured.measured_watts(path, 2, "abc") == {"cpu": {CONV.key: 8.0, "relu": 5.0}}
    assert measured.measured_watts(tmp_path / "nowhere.json", 2, "abc") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is no file of experiments.calibrate"),
        ("[]", "is no file of experiments.calibrate"),
        ('{"file_version": 1}', "is no file of experiments.calibrate"),
        ('{"file_version": 1, "tasks": [{"key": "conv2d"}]}', "is no file of experiments.calibrate"),
        ('{"file_version": 99, "tasks": []}', "has version 99, this checkout writes 1"),
    ],
)
def test_a_file_that_is_something_else_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "measured.json"
    path.write_text(text)
    with pytest.raises(MeasuredFileError, match=message) as caught:
        measured.read(path)
    assert str(path) in str(caught.value)
