from __future__ import annotations

from typing import Any

import pytest

from experiments.validation import ConfigError, validate
from tests.experiments.conftest import configuration

OF_TILES = (
    "must be a whole number, at least 1, or one for each class of workers, {cpu: 16, cuda: 64}, or auto"
)


def refusal(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(configuration(**changes), processors=2)
    return str(caught.value).splitlines()


def test_a_good_configuration_passes() -> None:
    validate(configuration(), processors=2)
    validate(configuration(workers=2, tile=64, epochs=1, momentum=0, weight_decay=1e-4), processors=2)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("epochs", 0, "epochs=0: must be a whole number, at least 1"),
        ("epochs", "many", "epochs=many: must be a whole number, at least 1"),
        ("epochs", True, "epochs=True: must be a whole number, at least 1"),
        ("batch_size", -4, "batch_size=-4: must be a whole number, at least 1"),
        ("tile", 0, f"tile=0: {OF_TILES}"),
        ("tile", 1.5, f"tile=1.5: {OF_TILES}"),
        ("tile", {"cpu": 16, "cuda": "auto"}, f"tile={{'cpu': 16, 'cuda': 'auto'}}: {OF_TILES}"),
        ("tile", {}, f"tile={{}}: {OF_TILES}"),
        ("workers", 0, "workers=0: must be a whole number, at least 1, or null for all that there are"),
        ("seed", -1, "seed=-1: must be a whole number, at least 0 and below 2^63"),
        ("learning_rate", 0, "learning_rate=0: must be a number above 0"),
        ("learning_rate", -0.1, "learning_rate=-0.1: must be a number above 0"),
        ("learning_rate", float("nan"), "learning_rate=nan: must be a number above 0"),
        ("learning_rate", float("inf"), "learning_rate=inf: must be a number above 0"),
        ("momentum", 1, "momentum=1: must be a number, at least 0 and below 1"),
        ("momentum", -0.5, "momentum=-0.5: must be a number, at least 0 and below 1"),
        ("weight_decay", -1e-9, "weight_decay=-1e-09: must be a number, at least 0"),
        ("evaluate", "perhaps", "evaluate=perhaps: must be true or false"),
        ("output", "", "output=: must be the name of a folder"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_it_must_be(key: str, value: Any, line: str) -> None:
    assert refusal(**{key: value}) == [line]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("min_window_s", -1, "seconds, 0 or more"),
        ("min_window_s", "long", "seconds, 0 or more"),
        ("idle_baseline_s", float("nan"), "seconds, 0 or more"),
        ("window_batches", 0, "a whole number of mini-batches, at least 1, or null"),
    ],
)
def test_a_value_of_the_accounting_that_cannot_be_is_named(key: str, value: Any, expected: str) -> None:
    assert refusal(energy={"sources": "auto", key: value}) == [f"energy.{key}={value}: must be {expected}"]


@pytest.mark.parametrize(
    "rate_hz", [0, -1, "often", None, {}, {"rapl": 0}, {"rapl": True}, {"rapl": {"dram": 1}}]
)
def test_a_rate_of_readings_that_is_none_is_refused_with_both_ways_to_give_it(rate_hz: Any) -> None:
    (line,) = refusal(energy={"sources": "auto", "rate_hz": rate_hz})
    assert line == (
        f"energy.rate_hz={rate_hz}: must be a number above 0, or one for each source: {{rapl: 100, default: 10}}"
    )


@pytest.mark.parametrize("rate_hz", [10, 0.5, {"default": 10}, {"rapl": 1000, "nvml": 20.0}])
def test_a_rate_of_readings_may_be_one_for_all_or_one_for_each_source(rate_hz: Any) -> None:
    validate(configuration(energy={"sources": "auto", "rate_hz": rate_hz}), processors=2)


def test_simulated_nodes_place_every_layer_by_itself() -> None:
    simulated = {"name": "weak", "simulated": True}
    message = "fuse=True: a simulated node places every layer by itself; fuse=false or auto"
    assert refusal(fuse=True, platform=simulated) == [message]
    assert refusal(fuse="maybe") == ["fuse=maybe: must be true, false or auto"]
    for fuse in (False, "auto"):
        validate(configuration(fuse=fuse, platform=simulated), processors=2)


def test_a_tile_is_no_larger_than_the_batch() -> None:
    assert refusal(tile=65) == ["tile=65 is larger than batch_size=64: a mini-batch is cut into tiles"]
    assert "is larger than batch_size=64" in refusal(tile={"cpu": 16, "cuda": 65})[0]
    validate(configuration(tile={"cpu": 16, "cuda": 64}), processors=2)


def test_workers_are_no_more_than_the_machine_has() -> None:
    assert refusal(workers=3) == ["workers=3: this machine has 2"]


def test_a_simulated_platform_may_have_more_workers_than_this_machine() -> None:
    validate(configuration(workers=3, platform={"name": "node", "simulated": True}), processors=2)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    assert len(refusal(epochs=0, momentum=2, tile=0)) == 3


def test_an_unknown_key_is_answered_with_what_there_is() -> None:
    (line,) = refusal(foo=1)
    assert line.startswith("unknown key 'foo'; there are: scheduler, model, ")
    assert "learning_rate" in line


def test_a_parameter_that_has_no_default_must_be_given() -> None:
    dataset = {"_target_": "dahl.datasets.ImageFolder", "root": "???"}
    assert refusal(dataset=dataset) == ["dataset.root must be given: dataset.root=..."]


def test_the_generic_scheduler_needs_a_name() -> None:
    scheduler = {"_target_": "schedulers.StarPUScheduler", "name": None}
    assert refusal(scheduler=scheduler) == [
        "scheduler=starpu needs the policy's name: scheduler.name=modular-heft"
    ]
