"""What `benchmarks.training --gpu` does where there is no card; what it measures needs one."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import measuring, training_gpu

SCRIPT = Path(training_gpu.__file__).with_name("train_pytorch_gpu.py")


class Nvml:
    """An NVML with some GPUs, or (None) without a driver."""

    class NVMLError(Exception):
        pass

    def __init__(self, gpus):
        self._gpus = gpus

    def nvmlInit(self):
        if self._gpus is None:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):
        return self._gpus

    def nvmlShutdown(self):
        pass


@pytest.mark.parametrize(("gpus", "words"), [(None, "Driver Not Loaded"), (0, "the driver lists none")])
def test_without_a_card_one_line_says_why(gpus, words):
    reason = training_gpu.no_card(Nvml(gpus))
    assert words in reason
    assert "without --gpu" in reason
    assert "\n" not in reason


def test_with_a_card_nothing_is_refused():
    assert training_gpu.no_card(Nvml(2)) is None


def test_ratios_are_those_to_the_best_way_in_float32_and_to_the_best_of_all():
    def spread(value):
        return measuring.Spread.of([value])

    theirs = {"eager": 10.0, "graphs": 40.0, "eager, TF32": 15.0, "graphs, TF32": 80.0}
    found = {
        "dahl, 1 GPU": {"lenet, batch 64": spread(20.0)},
        "PyTorch, 1 GPU": {f"lenet, batch 64; {way}": spread(value) for way, value in theirs.items()},
    }
    assert training_gpu.ratios(found) == {"lenet, batch 64": {"in float32": 0.5, "with TF32": 0.25}}
    assert training_gpu.ratios({"dahl, 1 GPU": found["dahl, 1 GPU"]}) == {}


def test_both_sides_get_the_same_models_batches_and_epochs():
    chosen = argparse.Namespace(
        images=None, models=["lenet"], batches=[64, 256], scheduler="lws", unfused=False, no_compile=True
    )
    jobs = {}
    for who, case in training_gpu.cases(chosen, lambda job: job, lambda job: job).items():
        jobs[who] = case()
    ours, theirs = jobs.values()
    for what in ("images", "batches", "epochs"):
        assert ours[what] == theirs[what]
    assert ours["tiles"] == {"lenet, batch 64": 64, "lenet, batch 256": 256}
    assert (ours["gpus"], ours["threads"]) == (1, 0)
    assert theirs["ways"] == ["eager", "channels_last", "graphs"]


@pytest.mark.slow  # imports PyTorch
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is an extra that is not here")
def test_pytorch_trains_in_the_ways_that_need_no_card():
    ways = ["eager", "channels_last"]
    job = {"images": {"basic_cnn": 20}, "batches": [8], "epochs": 1, "device": "cpu", "ways": ways}
    done = subprocess.run(
        [sys.executable, SCRIPT, json.dumps(job)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    both = [way + more for way in ways for more in ("", ", TF32")]
    assert set(found) == {f"basic_cnn, batch 8; {way}" for way in both}
    assert min(found.values()) > 0
