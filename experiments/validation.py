"""What is wrong with a configuration, before anything has started."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
CONFIGS = CHECKOUT / "configs"
GROUPS = ("scheduler", "model", "dataset", "energy", "platform", "workload", "framework")

_Check = Callable[[Any], bool]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def tile_sizes(tile: Any) -> list[Any]:
    """The sizes that a configuration has for tiles: one, or one for each class of workers."""
    return (list(tile.values()) or [None]) if isinstance(tile, Mapping) else [tile]


_VALUES: dict[str, tuple[_Check, str]] = {
    "epochs": (lambda v: _is_int(v) and v >= 1, "a whole number, at least 1"),
    "batch_size": (lambda v: _is_int(v) and v >= 1, "a whole number, at least 1"),
    "tile": (
        lambda v: v == "auto" or all(_is_int(size) and size >= 1 for size in tile_sizes(v)),
        "a whole number, at least 1, or one for each class of workers, {cpu: 16, cuda: 64}, or auto",
    ),
    "fuse": (lambda v: isinstance(v, bool) or v == "auto", "true, false or auto"),
    "workers": (
        lambda v: v is None or (_is_int(v) and v >= 0),
        "a whole number, at least 1, or null for all that there are",
    ),
    "gpu_workers": (lambda v: v == "all" or (_is_int(v) and v >= 0), "a whole number of GPU workers, or all"),
    "gpu_memory_mib": (lambda v: v is None or (_is_int(v) and v >= 64), "MiB, at least 64, or null"),
    "without_gpu": (lambda v: v in ("refuse", "cpu"), "refuse or cpu"),
    "seed": (lambda v: _is_int(v) and 0 <= v < 2**63, "a whole number, at least 0 and below 2^63"),
    "learning_rate": (lambda v: _is_number(v) and 0 < v < float("inf"), "a number above 0"),
    "momentum": (lambda v: _is_number(v) and 0 <= v < 1, "a number, at least 0 and below 1"),
    "weight_decay": (lambda v: _is_number(v) and 0 <= v < float("inf"), "a number, at least 0"),
    "label": (lambda v: v is None or (isinstance(v, str) and v != ""), "a name, or null"),
    "repeat": (lambda v: _is_int(v) and v >= 1, "a whole number, at least 1"),
    "repeats": (lambda v: _is_int(v) and v >= 1, "a whole number, at least 1"),
    "order_seed": (
        lambda v: v is None or (_is_int(v) and 0 <= v < 2**63),
        "a whole number, at least 0 and below 2^63, or null for the order that was given",
    ),
    "jobs": (
        lambda v: v is None or (_is_int(v) and v >= 1),
        "a whole number of simulations at a time, at least 1, or null for one on each core",
    ),
    "resume": (lambda v: isinstance(v, bool) or v == "failed", "true, false or failed"),
    "allow_concurrent": (lambda v: isinstance(v, bool), "true or false"),
    "timeout_s": (
        lambda v: v is None or (_is_number(v) and 0 < v < float("inf")),
        "seconds above 0, or null",
    ),
    "guard": (lambda v: v in ("label", "refuse", "off"), "label, refuse or off"),
    "max_foreign_cores": (lambda v: _is_number(v) and 0 <= v < float("inf"), "a number, 0 or more"),
    "evaluate": (lambda v: isinstance(v, bool), "true or false"),
    "bound": (lambda v: isinstance(v, bool), "true or false"),
    "trace": (lambda v: isinstance(v, bool), "true or false"),
    "output": (lambda v: isinstance(v, str) and v != "", "the name of a folder"),
    "name": (lambda v: v is None or (isinstance(v, str) and v != ""), "a name, or null"),
}

_ESTIMATES: dict[str, tuple[_Check, str]] = {
    "bias": (
        lambda v: isinstance(v, Mapping) and all(_is_number(f) and 0 < f < float("inf") for f in v.values()),
        "factors above 0 by worker class, such as {card: 2.0}",
    ),
    "noise": (lambda v: _is_number(v) and 0 <= v < float("inf"), "a number, 0 or more"),
    "seed": (lambda v: _is_int(v) and 0 <= v < 2**63, "a whole number, at least 0 and below 2^63"),
}

_TORCH_VALUES: dict[str, tuple[_Check, str]] = {
    "memory_format": (lambda v: v in ("contiguous", "channels_last"), "contiguous or channels_last"),
    "compile": (lambda v: isinstance(v, bool), "true or false"),
    "normalise": (lambda v: v in ("each_batch", "once"), "each_batch or once"),
}

_ENERGY_VALUES: dict[str, tuple[_Check, str]] = {
    "activity": (lambda v: v in ("auto", "tasks", "cpu_time"), "auto, tasks or cpu_time"),
    "idle_baseline_s": (lambda v: _is_number(v) and 0 <= v < float("inf"), "seconds, 0 or more"),
    "min_window_s": (lambda v: _is_number(v) and 0 <= v < float("inf"), "seconds, 0 or more"),
    "window_batches": (
        lambda v: v is None or (_is_int(v) and v >= 1),
        "a whole number of mini-batches, at least 1, or null",
    ),
}

_WORKERS = ("cpu", "gpu")

_SPLIT = "gpu_workers"
"""What `workers.gpu` becomes (`split_workers`)."""

_OPTIONAL = ("gpu_memory_mib", "without_gpu")
"""Configurations that were recorded before there were GPU workers have none of them."""

KEYS = (*GROUPS, *(key for key in _VALUES if key != _SPLIT), "estimates")


class ConfigError(Exception):
    """A configuration that cannot run; the message holds one line for each thing that is wrong."""


def split_workers(config: Mapping[str, Any]) -> dict[str, Any]:
    """A composed configuration with `workers` (CPU workers) and `gpu_workers` in the place of `workers.cpu` and `.gpu`.

    `workers=2` is `workers.cpu=2` without GPUs. Raises ConfigError for another key under `workers`.
    """
    given = config.get("workers")
    if not isinstance(given, Mapping):
        return {**config, "gpu_workers": config.get("gpu_workers", 0)}
    unknown = [key for key in given if key not in _WORKERS]
    if unknown:
        raise ConfigError(f"unknown key 'workers.{unknown[0]}'; there are: {', '.join(_WORKERS)}")
    return {**config, "workers": given.get("cpu"), "gpu_workers": given.get("gpu", 0)}


def validate(config: Mapping[str, Any], processors: int | None = None) -> None:
    """Raise ConfigError with all that is wrong with a composed configuration.

    `processors` is how many CPUs this process may use, asked from the system where it is None.
    """
    available = len(os.sched_getaffinity(0)) if processors is None else processors
    config = split_workers(config)
    wrong = [*_wrong_keys(config), *_wrong_values(config)]
    if not wrong:
        wrong = list(_wrong_together(config, available))
    if wrong:
        raise ConfigError("\n".join(wrong))


def _wrong_keys(config: Mapping[str, Any]) -> list[str]:
    missing = [f"{key} is missing" for key in KEYS if key not in (*config, *_OPTIONAL)]
    unknown = [
        f"unknown key '{key}'; there are: {', '.join(KEYS)}" for key in config if key not in (*KEYS, _SPLIT)
    ]
    return missing + unknown


def _wrong_values(config: Mapping[str, Any]) -> list[str]:
    wrong = [
        f"{key}={config[key]}: must be {expected}"
        for key, (holds, expected) in _VALUES.items()
        if key in config and not holds(config[key])
    ]
    wrong += [
        f"{group}.{key}={values[key]}: must be {expected}"
        for group, checks in (("energy", _ENERGY_VALUES), ("framework", _TORCH_VALUES))
        if isinstance(values := config.get(group), Mapping)
        for key, (holds, expected) in checks.items()
        if key in values and not holds(values[key])
    ]
    wrong += _wrong_estimates(config.get("estimates", {}))
    wrong += [
        f"{group}={config[group]}: must be one of {', '.join(options(group))}"
        for group in GROUPS
        if group in config and not isinstance(config[group], Mapping)
    ]
    wrong += [
        f"{group}.{key} must be given: {group}.{key}=..."
        for group in GROUPS
        if isinstance(config.get(group), Mapping)
        for key, value in config[group].items()
        if value == "???"
    ]
    energy = config.get("energy")
    rate_hz = energy.get("rate_hz", 1) if isinstance(energy, Mapping) else 1
    if rate_hz != "???" and not _is_rate(rate_hz):
        wrong.append(
            f"energy.rate_hz={rate_hz}: must be a number above 0, or one for each source: {{rapl: 100, default: 10}}"
        )
    return wrong


def _wrong_estimates(estimates: Any) -> list[str]:
    if not isinstance(estimates, Mapping):
        return [f"estimates={estimates}: must have {', '.join(_ESTIMATES)}"]
    return [
        f"unknown key 'estimates.{key}'; there are: {', '.join(_ESTIMATES)}"
        for key in estimates
        if key not in _ESTIMATES
    ] + [
        f"estimates.{key}={estimates[key]}: must be {expected}"
        for key, (holds, expected) in _ESTIMATES.items()
        if key in estimates and not holds(estimates[key])
    ]


def _is_rate(value: Any) -> bool:
    rates = value.values() if isinstance(value, Mapping) and value else [value]
    return all(_is_number(rate) and 0 < rate < float("inf") for rate in rates)


def _wrong_together(config: Mapping[str, Any], processors: int) -> list[str]:
    wrong = []
    torch = config["framework"]["name"] == "torch"
    if torch:
        wrong += _wrong_for_torch(config)
    if not torch and config["tile"] != "auto" and max(tile_sizes(config["tile"])) > config["batch_size"]:
        wrong.append(
            f"tile={config['tile']} is larger than batch_size={config['batch_size']}: "
            "a mini-batch is cut into tiles"
        )
    simulated = config["platform"].get("simulated", True)
    if simulated and config["fuse"] is True:
        wrong.append("fuse=True: a simulated node places every layer by itself; fuse=false or auto")
    if simulated and config["energy"].get("activity") == "cpu_time":
        wrong.append("energy.activity=cpu_time: a simulated node uses no CPU time; energy.activity=auto")
    if config["workers"] == 0 and (simulated or torch or config["gpu_workers"] == 0):
        wrong.append(f"workers=0: must be {_VALUES['workers'][1]}")  # none only beside GPU workers
    if config["gpu_workers"] != 0 and simulated:
        wrong.append("workers.gpu: a simulated node has its own GPUs; platform=host takes this machine's")
    if config["gpu_workers"] != 0 and torch:
        wrong.append("workers.gpu: framework=torch trains on CPU cores")
    if config["workers"] is not None and not simulated and config["workers"] > processors:
        wrong.append(f"workers={config['workers']}: this machine has {processors}")
    if config["workload"].get("_target_") is not None and not simulated:
        wrong.append("this workload has no kernels and runs on simulated nodes only: platform=NAME")
    if config["scheduler"].get("name", "") is None:
        wrong.append("scheduler=starpu needs the policy's name: scheduler.name=modular-heft")
    return wrong


def _wrong_for_torch(config: Mapping[str, Any]) -> list[str]:
    """What PyTorch's twin cannot do; scheduler, tile and fuse mean nothing to it."""
    wrong = []
    if config["platform"].get("simulated", True):
        wrong.append(
            "framework=torch: PyTorch runs on this machine only, not on a simulated node; platform=host"
        )
    if config["scheduler"].get("explain"):
        wrong.append("scheduler.explain=true: PyTorch has no scheduler; framework=starpu")
    if config["energy"].get("activity") == "tasks":
        wrong.append("energy.activity=tasks: PyTorch has no tasks; energy.activity=auto or cpu_time")
    return wrong


def options(group: str) -> list[str]:
    """The names that a group of the configuration has."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
