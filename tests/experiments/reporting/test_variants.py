"""What is compared with what."""

from __future__ import annotations

from pathlib import Path

from experiments import load_runs
from experiments.reporting.variants import factors_of, setting_of
from tests.experiments.synthetic_runs import write_run


def test_runs_on_a_node_described_in_two_ways_are_no_repeats_of_each_other(tmp_path: Path) -> None:
    for free in (False, True):
        for seed in (0, 1):
            write_run(tmp_path, seed=seed, platform_config={"simulated": True, "free_links": free})
    runs = load_runs(tmp_path)
    assert set(factors_of(list(runs))) == {
        (("scheduler", "eager"), ("platform.free_links", "False")),
        (("scheduler", "eager"), ("platform.free_links", "True")),
    }


def test_epochs_of_different_numbers_of_images_are_never_compared(tmp_path: Path) -> None:
    for images in (None, 3200):
        write_run(tmp_path, dataset={"train_size": images})
    assert {setting_of(run)[-1] for run in load_runs(tmp_path)} == {
        "synthetic",
        "synthetic (3,200 images)",
    }
