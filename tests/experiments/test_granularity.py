"""The tile of ``tile=auto``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dahl.datasets import Synthetic
from dahl.models import basic_cnn
from energy import Selection
from experiments import granularity, records
from experiments.events import EventWriter
from experiments.workload import Workload
from tests.dahl.trainers import synthetic, training
from tests.experiments.conftest import configuration


def workload(**changes: Any) -> Workload:
    return Workload(
        configuration(tile="auto", **changes),
        Synthetic(train_size=80, test_size=20).load(),
        basic_cnn(),
        None,
        None,
        Selection((), ()),
    )


@pytest.mark.parametrize(
    ("batch_size", "tiles"),
    [(64, [16, 32, 64]), (16, [16]), (5, [5]), (80, [16, 32, 64, 80]), (256, [16, 32, 64, 128, 256])],
)
def test_tiles_are_powers_of_two_micro_tiles_up_to_the_whole_mini_batch(
    batch_size: int, tiles: list[int]
) -> None:
    assert granularity.candidates(batch_size) == tiles


@pytest.mark.parametrize("batch_size", [5, 64])
def test_without_fused_tasks_auto_is_16_since_the_bits_depend_on_it(batch_size: int, tmp_path: Path) -> None:
    chosen = granularity.with_tile(tmp_path, workload(fuse=False, batch_size=batch_size), EventWriter(None))
    assert chosen.config["tile"] == min(16, batch_size)


def test_what_was_measured_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the signature of the workload, which the tile is no part of, but the mini-batch is."""
    monkeypatch.setenv("DAHL_CACHE", str(tmp_path))
    own = workload()
    path = tmp_path / "tiles" / f"{granularity.signature(own)}.json"
    path.parent.mkdir()
    records.write_json(path, {"tile": 32})
    assert granularity.with_tile(tmp_path, own, EventWriter(None)).config["tile"] == 32
    assert granularity.signature(workload(batch_size=32)) != granularity.signature(own)


def test_each_tile_has_a_rate() -> None:
    dataset = synthetic(train_size=200, test_size=10)
    with (
        training(dataset, fuse=True, batch_size=64, tile=16) as (small, _),
    ):
        found = granularity.images_per_s({16: small})
    assert list(found) == [16]
    assert found[16] > 0
