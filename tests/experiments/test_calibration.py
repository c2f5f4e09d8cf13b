"""What policies are told of tasks on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dahl.costs import MeasuredCosts
from experiments import calibration, measured, records
from experiments.events import EventWriter
from experiments.workload import load_workload
from tests.experiments.conftest import configuration
from tests.experiments.test_measured import CONV


def test_joules_take_the_watts_that_calibrate_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "cache_root", lambda: tmp_path)
    monkeypatch.setattr(measured, "cache_root", lambda: tmp_path)
    config = configuration(dataset={"_target_": "dahl.datasets.Synthetic", "train_size": 32, "test_size": 32})
    config["energy"]["sources"] = []
    workload = load_workload(config, EventWriter(None))
    lengths = tmp_path / "calibration" / f"{calibration.signature(workload)}.json"
    lengths.parent.mkdir()
    records.write_json(lengths, {"seconds": {"cpu": {CONV.key: 2e-3}}})
    assert calibration.ensure_costs(tmp_path, workload, EventWriter(None)) == MeasuredCosts(
        {"cpu": {CONV.key: 2e-3}}
    )
    task = {**vars(CONV), "workers": len(os.sched_getaffinity(0)), "kernels": calibration.kernels_digest()}
    record = measured.with_measurement(measured.read(measured.default_path()), measured.as_measurement(task))
    records.write_json(measured.default_path(), record)
    known = calibration.ensure_costs(tmp_path, workload, EventWriter(None))
    assert known == MeasuredCosts({"cpu": {CONV.key: 2e-3}}, {"cpu": {CONV.key: CONV.watts}})
