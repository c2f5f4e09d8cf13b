"""Training with fused tasks: the same as with a task for each layer, and the same bits whatever cuts and places it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dahl.layers import Conv2d, Flatten, Linear, Sequential
from dahl.models import basic_cnn, lenet
from dahl.recording_fused import round_alike
from dahl.starpu import Worker
from dahl.tiling import Tiling
from dahl.training import Hyperparameters, LossIsNotANumberError
from tests.dahl.test_training import (
    NumpyTraining,
    assert_close_losses,
    assert_close_weights,
    check_evaluation,
)
from tests.dahl.trainers import ODD, WORKERS, synthetic, training

MODELS = {"basic_cnn": basic_cnn(), "lenet": lenet(filters=(16, 32), units=16)}
each_model = pytest.mark.parametrize("name", MODELS)
HYPER: dict[str, Any] = {"learning_rate": 0.03, "momentum": 0.8, "weight_decay": 0.01, "seed": 3}
MANY = {**ODD, "train_size": 200}


@each_model
@pytest.mark.parametrize(
    ("shape", "batch_size", "tile"),
    [
        (ODD, 16, 16),
        (ODD, 53, 10),
        (ODD, 64, 64),
        (MANY, 96, 32),
        ({**ODD, "train_size": 12}, 1, 1),
        ({**ODD, "channels": 1, "height": 28, "width": 28}, 40, 32),
    ],
)
def test_fused_epochs_match_plain_numpy(name: str, shape: dict[str, int], batch_size: int, tile: int) -> None:
    dataset, hyper = synthetic(**shape), {**HYPER, "batch_size": batch_size, "tile": tile}
    with training(dataset, MODELS[name], fuse=True, **hyper) as (trainer, _):
        expected = NumpyTraining(trainer, dataset, name, Hyperparameters(**hyper))
        for epoch in (1, 2):
            result = trainer.run_epoch(epoch)
            assert_close_losses(result.loss, expected.run_epoch(epoch)[-1])
        assert_close_weights(trainer.weights(), expected.weights)
        check_evaluation(trainer, dataset, name)


@each_model
def test_fused_and_unfused_training_agree_within_rounding(name: str) -> None:
    weights = []
    for fuse in (False, True):
        with training(synthetic(**MANY), MODELS[name], fuse=fuse, batch_size=64, tile=32, **HYPER) as (
            trainer,
            _,
        ):
            start = trainer.weights()
            for epoch in (1, 2):
                trainer.run_epoch(epoch)
            weights.append(trainer.weights())
    assert_close_weights(weights[1], weights[0])
    assert any((weights[1][key] != start[key]).any() for key in start)


def fused_sha256(name: str, scheduler: str, workers: int, tile: int, batch_size: int = 64) -> str:
    with training(
        synthetic(**MANY),
        MODELS[name],
        scheduler=scheduler,
        workers=workers,
        fuse=True,
        batch_size=batch_size,
        tile=tile,
    ) as (trainer, _):
        for epoch in (1, 2):
            trainer.run_epoch(epoch)
        return trainer.weights_sha256()


@each_model
def test_fused_bits_do_not_depend_on_tile_scheduler_or_workers(name: str) -> None:
    """Mini-batches of 64, the last of 8; of 80, whose tiles of 32 do not divide it, the last of 40."""
    for batch_size in (64, 80):
        expected = fused_sha256(name, "eager", 1, 16, batch_size)
        for scheduler in ("lws", "random", "dmda", "EagerEnergy"):
            for tile in (16, 32, 64):
                assert fused_sha256(name, scheduler, WORKERS, tile, batch_size) == expected
    assert fused_sha256(name, "eager", 1, 5) != fused_sha256(name, "eager", 1, 16), "the digest tells bits"


@each_model
def test_tiles_of_several_sizes_give_the_bits_of_equal_ones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the update as a task, and as part of the steps, where a mini-batch of 48 is two tiles."""
    expected = {batch_size: fused_sha256(name, "eager", 1, 16, batch_size) for batch_size in (48, 112)}
    for sizes in ((32, 16), (64, 16, 16)):
        monkeypatch.setattr("dahl.training.tiling", lambda tile, classes, sizes=sizes: Tiling(sizes))
        for batch_size, digest in expected.items():
            assert fused_sha256(name, "lws", WORKERS, 16, batch_size) == digest


def test_a_mini_batch_is_a_task_for_each_tile_and_one_for_the_update() -> None:
    with training(synthetic(**MANY), fuse=True, batch_size=64, tile=16, trace=True) as (trainer, runtime):
        assert trainer.tasks_per_batch == 5
        trainer.run_epoch(1)
        names = [codelet.name for codelet in runtime.codelets]
        ran = [names[number] for number in runtime.take_trace()["codelet"]]
        assert (ran.count("cnn_step"), ran.count("sum_and_step"), len(ran)) == (13, 4, 17)


@pytest.mark.skipif(WORKERS < 2, reason="needs two cores")
def test_with_a_tile_for_each_worker_the_update_is_part_of_the_steps() -> None:
    """200 images in mini-batches of 64 and one of 8: three of two tiles, one of one and one update."""
    with training(synthetic(**MANY), fuse=True, batch_size=64, tile=32, trace=True) as (trainer, runtime):
        assert trainer.tasks_per_batch == 2
        submitted = sum(len(graph) * times for graph, times in trainer.epoch_graphs)
        trainer.run_epoch(1)
        names = [codelet.name for codelet in runtime.codelets]
        ran = [names[number] for number in runtime.take_trace()["codelet"]]
        assert (ran.count("cnn_update_step"), ran.count("sum_and_step"), len(ran)) == (7, 3, 10)
        assert submitted == 10


@pytest.mark.parametrize("batches", [1, 2, 3, 4])
def test_an_epoch_that_ends_sooner_ends_with_its_last_update(batches: int) -> None:
    """Three mini-batches of 64 and one of 8: the same bits as where updates are tasks."""
    digests = []
    for workers, tile in ((1, 16), (WORKERS, 64), (WORKERS, 32)):
        with training(synthetic(**MANY), workers=workers, fuse=True, batch_size=64, tile=tile) as (
            trainer,
            _,
        ):
            for epoch in (1, 2):
                trainer.run_epoch(epoch, max_batches=batches)
            digests.append(trainer.weights_sha256())
    assert digests == digests[:1] * 3


def test_a_fused_loss_that_is_no_number_stops_training() -> None:
    message = "the loss became nan at mini-batch 2 of epoch 1"
    with (
        training(synthetic(**MANY), fuse=True, batch_size=16, tile=16, learning_rate=1e30) as (trainer, _),
        pytest.raises(LossIsNotANumberError, match=message),
    ):
        trainer.run_epoch(1)


def test_a_model_without_layers_that_fuse_is_refused_by_name() -> None:
    model = Sequential((Conv2d(2), Flatten(), Linear(3)), name="bare")
    with (
        pytest.raises(ValueError, match="bare has no layers that can be one task; train it with fuse=false"),
        training(synthetic(**ODD), model, fuse=True),
    ):
        pass


def test_the_losses_of_an_epoch_are_those_of_its_mini_batches() -> None:
    """Reports come in groups of mini-batches: the last tells the mean over all images, those before it over theirs."""
    dataset = synthetic(**{**ODD, "train_size": 20_000})
    with training(dataset, fuse=True, batch_size=16, tile=16, learning_rate=1e-30) as (trainer, _):
        seen: list[Any] = []
        result = trainer.run_epoch(1, seen.append)
        assert len(seen) > 1
        assert seen[-1].images == 20_000
        assert all(np.isfinite(progress.loss) for progress in seen)
        assert abs(seen[-2].loss - result.loss) < 0.2
        assert seen[-1].loss == result.loss


@pytest.mark.parametrize(
    ("classes", "alike"),
    [
        ((("cpu", "big"), ("cpu", "little")), True),
        ((("cuda", "H100"), ("cuda", "H100")), True),
        ((("cuda", "H100"), ("cuda", "A100")), False),
        ((("cpu", "host"), ("cuda", "H100")), False),
    ],
)
def test_copies_of_the_parameters_are_kept_by_workers_that_round_alike(
    classes: tuple[tuple[Any, str], ...], alike: bool
) -> None:
    workers = [Worker(i, str(i), arch, 0, 0, name) for i, (arch, name) in enumerate(classes)]
    assert round_alike(workers) is alike


def test_a_rehearsal_runs_every_kind_of_task_that_an_epoch_has() -> None:
    images = {**ODD, "train_size": 16, "test_size": 4}
    with training(synthetic(**images), workers=2, trace=True, batch_size=8, tile=4, fuse=True) as (
        trainer,
        runtime,
    ):
        trainer.rehearse(1)
        ran = set(runtime.take_trace()["footprint"].tolist())
        uses = [task.footprint for graph, _ in trainer.epoch_graphs for task in graph.tasks()]
        assert len(set(uses)) > 1
        assert set(uses) <= ran
