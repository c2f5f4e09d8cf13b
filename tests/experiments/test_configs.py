"""Every file of the configuration composes, and names something that there is."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from omegaconf import DictConfig, OmegaConf

from experiments.policies import HOW_IT_RUNS, load_scheduler
from experiments.validation import CONFIGS, GROUPS, KEYS, options, validate

ALL = [(group, name) for group in (*GROUPS, "experiment") for name in options(group)]
NEEDS = {
    ("scheduler", "starpu"): ["scheduler.name=modular-heft"],
    ("scheduler", "own"): ["scheduler._target_=tests.schedulers.policies.EarliestFinish"],
    **{("workload", name): ["platform=cpu8_gpu2"] for name in options("workload") if name != "cnn"},
    ("workload", "recorded"): ["platform=cpu8_gpu2", "workload.file=/x"],
    ("dataset", "image_folder"): ["dataset.root=/x"],
}


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


def composed(group: str, name: str) -> DictConfig:
    return compose("run", overrides=[f"{group}={name}", *NEEDS.get((group, name), [])])


@pytest.mark.parametrize(("group", "name"), ALL)
def test_it_composes_to_a_configuration_that_can_run(group: str, name: str) -> None:
    config: Any = OmegaConf.to_container(composed(group, name), resolve=True)
    validate(config, processors=1024)


@pytest.mark.parametrize(
    ("group", "name"), [both for both in ALL if both[0] in ("scheduler", "model", "dataset")]
)
def test_its_target_exists(group: str, name: str) -> None:
    module, _, attribute = composed(group, name)[group]["_target_"].rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("name", options("scheduler"))
def test_every_scheduler_can_be_made_and_takes_every_parameter_of_its_file(name: str) -> None:
    node = composed("scheduler", name).scheduler
    policy = load_scheduler(node)
    given = {
        key: value for key, value in node.items() if not str(key).startswith("_") and key not in HOW_IT_RUNS
    }
    assert {key: getattr(policy, str(key)) for key in given} == given


def test_every_policy_has_its_file() -> None:
    schedulers = importlib.import_module("schedulers")
    targets = {
        composed("scheduler", name).scheduler["_target_"] for name in options("scheduler") if name != "own"
    }
    policies = {
        f"schedulers.{name}"
        for name in schedulers.__all__
        if issubclass(getattr(schedulers, name), schedulers.PlacementPolicy | schedulers.PullPolicy)
        and name not in ("PlacementPolicy", "PullPolicy")
    }
    assert targets == policies | {"schedulers.StarPUScheduler"}


def test_the_schedulers_of_starpu_are_named_as_starpu_names_them() -> None:
    for name in ("eager", "lws", "prio", "random", "ws", "dm", "dmda", "dmdas", "heteroprio"):
        assert composed("scheduler", name).scheduler.name == name


def test_the_defaults_are_those_of_the_documentation() -> None:
    config = compose("run")
    assert set(config) == set(KEYS)
    assert (config.epochs, config.batch_size, config.tile, config.seed) == (5, 64, 16, 0)
    assert (config.learning_rate, config.momentum, config.weight_decay) == (0.01, 0.9, 0.0)
    assert config.workers == {"cpu": None, "gpu": 0}
    assert (config.gpu_memory_mib, config.without_gpu) == (None, "refuse")


def covered_by(experiment: str) -> dict[str, list[str]]:
    swept = OmegaConf.load(CONFIGS / "experiment" / f"{experiment}.yaml").hydra.sweeper.params
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in swept.items()])
    return {
        override.key_or_group: (
            override.value().filter(options(override.key_or_group))
            if isinstance(override.value(), Glob)
            else [str(choice) for choice in override.sweep_iterator()]
        )
        for override in parsed
    }


def test_the_tables_of_policies_on_nodes_leave_out_no_policy_and_no_simulated_node() -> None:
    made_up, real = (covered_by(f"policies_on_{nodes}") for nodes in ("nodes", "real_nodes"))
    assert set(options("scheduler")) - set(made_up["scheduler"]) == {"own", "random", "starpu"}
    halves = {"cpu8", "gpu2"}  # of cpu8_gpu2
    assert set(options("platform")) - set(made_up["platform"]) - set(real["platform"]) == {"host", *halves}
    assert not set(made_up["platform"]) & set(real["platform"])
    assert len(made_up["platform"]) >= 4
    assert len(real["platform"]) >= 10
    assert len(real["scheduler"]) == 9
