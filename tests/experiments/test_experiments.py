"""Every experiment says its question and how long it takes, and every trial of its sweep can run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from omegaconf import OmegaConf

from experiments.validation import CONFIGS, options, validate

EXPERIMENTS = options("experiment")


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


def head(name: str) -> str:
    """The comment at the top, after Hydra's line."""
    lines = (CONFIGS / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    taken = []
    for line in lines[1:]:
        if not line.startswith("#"):
            break
        taken.append(line.removeprefix("#").strip())
    return " ".join(taken)


def swept(name: str) -> list[list[str]]:
    """For each key that is swept its overrides, as Hydra's sweeper makes them of the file's own."""
    params = OmegaConf.load(CONFIGS / "experiment" / f"{name}.yaml").hydra.sweeper.params
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    choices = []
    for override in parsed:
        value = override.value()
        names = (
            value.filter(options(override.key_or_group))
            if isinstance(value, Glob)
            else list(override.sweep_string_iterator())
        )
        assert names, override.input_line
        choices.append([f"{override.key_or_group}={choice}" for choice in names])
    return choices


def trials(name: str) -> list[list[str]]:
    """The overrides of each trial."""
    return [list(trial) for trial in product(*swept(name))]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_says_its_question_its_command_and_how_long_it_takes(name: str) -> None:
    words = head(name)
    assert "?" in words
    assert f"python -m experiments.run -m +experiment={name}" in words
    told = re.search(r"(\d+) (?:simulated )?trials, about [\d.]+ (?:seconds|minutes)", words)
    assert told, words
    repeats = compose("run", overrides=[f"experiment={name}"]).repeats
    assert int(told[1]) == len(trials(name)) * repeats


LONG = [name for name in EXPERIMENTS if name.startswith(("policies_on_", "platforms"))]


def check(name: str, overrides_of_trials: list[list[str]]) -> None:
    seen = set()
    for overrides in overrides_of_trials:
        config: Any = OmegaConf.to_container(
            compose("run", overrides=[f"experiment={name}", *overrides]), resolve=True
        )
        assert config["name"] == name
        validate(config, processors=1024)
        seen.add(OmegaConf.to_yaml(config))
    assert len(seen) == len(overrides_of_trials), "two trials are the same"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in EXPERIMENTS]
)
def test_each_trial_of_it_can_run(name: str) -> None:
    check(name, trials(name))


@pytest.mark.parametrize("name", LONG)
def test_each_value_that_a_long_one_sweeps_can_run(name: str) -> None:
    """Composing every pair of a policy and a node takes half a minute: with -m slow."""
    choices = swept(name)
    count = max(map(len, choices))
    check(name, [[values[number % len(values)] for values in choices] for number in range(count)])
