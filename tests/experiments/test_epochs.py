"""Blocks of epochs, nested windows and the idle baseline of trials on the real StarPU, with a counter by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from energy import Selection
from experiments import records, tables
from experiments.events import EventWriter
from experiments.training import train
from experiments.workload import load_workload
from tests.energy.sources import PACKAGE, HandSource
from tests.experiments.conftest import CHOICES, configuration

WATTS = {"base_w": 10.0} | {"cpu": {"idle_w": 1.0, "polling_w": 2.0, "busy_w": 5.0}}


def at_watts(watts: int) -> Callable[[int], int]:
    return lambda t_ns: t_ns * watts // 1000 % 262_143_328_851


Counter = Callable[[int], int]


FORTY_WATTS = at_watts(40)


def trial(folder: Path, counter: Counter | None = FORTY_WATTS, **changes: Any) -> dict[str, Any]:
    """Train 4 epochs of 96 images; returns the result with the trial's events and tables."""
    energy = {"rate_hz": 100, "idle_baseline_s": 0.05, "min_window_s": 0.0, "model": WATTS, "sources": []}
    config = configuration(
        model={"_target_": "dahl.models.lenet"},
        dataset={"_target_": "dahl.datasets.Synthetic", "train_size": 96, "test_size": 64},
        energy=energy | changes.pop("energy", {}),
        epochs=4,
        batch_size=32,
        tile=16,
        workers=1,
        choices=CHOICES,
        **changes,
    )
    folder.mkdir()
    records.write_json(folder / records.ENVIRONMENT_NAME, {})
    seen: list[dict[str, Any]] = []
    writer = EventWriter(None)
    writer.emit = lambda event, **fields: seen.append({"event": event, **fields})
    workload = load_workload(config, writer)
    if counter is not None:
        workload = replace(workload, sources=Selection((HandSource("rapl", {PACKAGE: counter}),), ()))
    result = train(folder, workload, writer)
    tables.finish_tables(folder)
    frames = {
        name: pd.read_parquet(folder / f"{name}.parquet")
        for name in ("epochs", "windows", "tasks", "breakdown")
    }
    return {**result, "events": seen, **frames}


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trial(tmp_path_factory.mktemp("runs") / "one by one", energy={"window_batches": 2})


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trial(tmp_path_factory.mktemp("runs") / "together", energy={"min_window_s": 1000.0})


def test_epochs_long_enough_are_blocks_of_their_own(one_by_one: dict[str, Any]) -> None:
    epochs = one_by_one["epochs"]
    assert epochs["block"].tolist() == [1, 2, 3, 4]
    assert (epochs["gross_j"] >= 40 * epochs["seconds"]).all()
    assert (epochs["net_j"].abs() < 0.05 * epochs["gross_j"]).all(), (
        "the counter idles at what it always shows"
    )


def test_epochs_too_short_to_resolve_share_a_block_and_its_joules_are_nobodys_own(
    together: dict[str, Any],
) -> None:
    epochs, windows = together["epochs"], together["windows"]
    assert epochs["block"].tolist() == [1, 1, 1, 1]
    assert epochs["gross_j"].isna().all()
    block = windows[windows["window"] == "epoch"]
    assert block[["epoch", "last_epoch"]].to_numpy().tolist() == [[1, 4]]
    assert block["gross_j"].item() == pytest.approx(40 * block["seconds"].item(), rel=0.01)
    assert block["seconds"].item() >= epochs["seconds"].sum()
    (told,) = [event for event in together["events"] if event.get("window") == "epoch"]
    assert (told["epoch"], told["last_epoch"], told["gross_j"]) == (1, 4, block["gross_j"].item())


def test_a_block_evaluates_each_epoch_with_the_weights_that_it_left(
    one_by_one: dict[str, Any], together: dict[str, Any]
) -> None:
    figures = ["loss", "test_loss", "accuracy"]
    assert together["epochs"][figures].equals(one_by_one["epochs"][figures])
    assert together["epochs"]["test_loss"].nunique() == 4
    assert together["weights_sha256"] == one_by_one["weights_sha256"]


def test_tasks_of_a_block_know_their_epoch(one_by_one: dict[str, Any], together: dict[str, Any]) -> None:
    counts = [
        found["tasks"].query("window == 'epoch'").groupby("epoch").size().tolist()
        for found in (one_by_one, together)
    ]
    assert counts[0] == counts[1]
    assert len(counts[0]) == 4


def test_ranges_of_mini_batches_lie_inside_their_epoch(one_by_one: dict[str, Any]) -> None:
    windows = one_by_one["windows"]
    ranges = windows[windows["window"] == "batches"]
    assert set(ranges["epoch"]) == {1, 2, 3, 4}
    for epoch, own in ranges.groupby("epoch"):
        (whole,) = windows[(windows["window"] == "epoch") & (windows["epoch"] == epoch)].itertuples()
        assert (own["first_batch"].iloc[0], own["last_batch"].iloc[-1]) == (1, 3)
        assert own["gross_j"].sum() <= whole.gross_j
        assert own["start_t_mono_ns"].min() >= whole.start_t_mono_ns
        assert own["end_t_mono_ns"].max() <= whole.end_t_mono_ns


def test_the_window_of_the_run_holds_epochs_and_evaluations(one_by_one: dict[str, Any]) -> None:
    windows = one_by_one["windows"]
    (run,) = windows[windows["window"] == "run"].itertuples()
    inside = windows[windows["window"].isin(["epoch", "evaluation"])]
    assert len(inside) == 8
    assert inside["gross_j"].sum() <= run.gross_j <= 40 * run.seconds * 1.01


def test_the_breakdown_of_a_window_sums_up_to_its_joules(one_by_one: dict[str, Any]) -> None:
    found, windows = one_by_one["breakdown"], one_by_one["windows"]
    epochs = found[found["window"] == "epoch"]
    parts = epochs[
        [f"{name}_j" for name in ("compute", "polling", "sleep", "scheduling", "transfers", "base")]
    ]
    assert (parts >= 0).all().all()
    total_j = windows[windows["window"] == "epoch"]["gross_j"].to_numpy()
    assert (parts.sum(axis=1) + epochs["remainder_j"]).to_numpy() == pytest.approx(total_j)
    # 40 W by the counter; 10 W of base and at most 5 W of its worker by the model.
    assert (epochs["remainder_j"] >= 0.6 * epochs["total_j"]).all()


def test_without_a_counter_every_epoch_is_a_block(tmp_path: Path) -> None:
    found = trial(tmp_path / "run", None, energy={"min_window_s": 1000.0}, evaluate=False)
    assert found["epochs"]["block"].tolist() == [1, 2, 3, 4]
    assert found["epochs"]["gross_j"].notna().all()
    assert found["idle_drifted"] is None


def test_a_sweep_measures_its_idle_baseline_once_and_each_trial_checks_it(tmp_path: Path) -> None:
    sweep = {"sweep": str(tmp_path / "sweep"), "evaluate": False}
    first = trial(tmp_path / "first", **sweep)
    second = trial(tmp_path / "second", at_watts(50), **sweep)
    kept = [
        json.loads((tmp_path / run / "environment.json").read_text())["energy"] for run in ("first", "second")
    ]
    assert kept[0]["idle_baseline"] == kept[1]["idle_baseline"]
    assert kept[1]["idle_baseline"]["paused"]["rapl:package-0"]["watts"] == pytest.approx(40.0, rel=0.01)
    assert kept[1]["idle_baseline"]["awake"]["rapl:package-0"]["watts"] == pytest.approx(40.0, rel=0.01)
    assert (first["idle_drifted"], second["idle_drifted"]) == (False, True)
    assert kept[1]["idle_drift"]["rapl:package-0"]["after_w"] == pytest.approx(50.0, rel=0.01)
    (notice,) = [event["message"] for event in second["events"] if event["event"] == "notice"]
    assert notice.startswith("rapl:package-0 idles at 5")
    # What the second trial takes off is the sweep's 40 W, of its own 50 W.
    assert second["epochs"]["net_j"].sum() == pytest.approx(second["epochs"]["gross_j"].sum() / 5, rel=0.05)
