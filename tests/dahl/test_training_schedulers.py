"""The same bits whatever the scheduler and the number of workers."""

from __future__ import annotations

import pytest

from tests.dahl.trainers import ODD, SMALL_LENET, WORKERS, synthetic, training

SCHEDULERS = ["eager", "lws", "prio", "random", "ws", "dm", "dmda", "dmdas", "heteroprio", "EagerEnergy"]


def trained_sha256(scheduler: str, workers: int, seed: int = 0) -> tuple[str, set[int]]:
    """Digest of the weights after two epochs, and the workers that ran tasks."""
    with training(
        synthetic(**ODD),
        SMALL_LENET,
        scheduler=scheduler,
        workers=workers,
        trace=True,
        batch_size=16,
        tile=3,
        seed=seed,
    ) as (trainer, runtime):
        for epoch in (1, 2):
            trainer.run_epoch(epoch)
        return trainer.weights_sha256(), set(runtime.take_trace()["worker"].tolist())


@pytest.fixture(scope="module")
def sha256_on_one_worker() -> str:
    return trained_sha256("eager", 1)[0]


@pytest.mark.parametrize("workers", range(1, WORKERS + 1))
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_seed_gives_the_same_bits_under_every_scheduler(
    scheduler: str, workers: int, sha256_on_one_worker: str
) -> None:
    digest, used = trained_sha256(scheduler, workers)
    assert digest == sha256_on_one_worker
    if scheduler == "random":
        assert used == set(range(workers)), "a worker stood idle, so this compares nothing"


def test_another_seed_gives_other_weights(sha256_on_one_worker: str) -> None:
    assert trained_sha256("eager", 1, seed=1)[0] != sha256_on_one_worker
