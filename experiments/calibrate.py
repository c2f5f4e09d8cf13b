"""`python -m experiments.calibrate`: seconds and joules of every kind of task on this machine, in one file.

Each kind runs alone on all workers until the counters resolve its watts; without a counter the watts are the power
model's, and called so. What is measured is kept at once: a second call goes on where the first one stopped.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from experiments import records
from experiments.events import Event
from experiments.explain import explain
from experiments.machine_lock import MachineBusyError, measuring
from experiments.measured import MeasuredFileError, default_path, read
from experiments.run import NOT_CONFIGURED, resolved, trial_environment
from experiments.supervisor import Outcome, log_tail, supervise
from experiments.validation import CONFIGS, GROUPS, ConfigError, split_workers, validate

TILE_COMMAND = (sys.executable, "-m", "experiments.calibrate_tile")

_OWN = ("limit_s", "fresh", "file", "schedulers")


class CalibrateFailedError(Exception):
    """A tile size could not be measured; what is to be said about it has been said."""


def calibrate(cfg: DictConfig) -> Path:
    """Measure every tile size of a composed configuration; returns the file.

    Raises ConfigError, MeasuredFileError, MachineBusyError, CalibrateFailedError; SystemExit (128 + signal) where
    it was stopped.
    """
    config = resolved(cfg)
    trials = [_trial(config, tile) for tile in _tiles(config["tile"])]
    for trial in trials:
        own = (*NOT_CONFIGURED, "calibrate")
        validate({key: value for key, value in trial.items() if key not in own})
    file = Path(trials[0]["calibrate"]["file"])
    read(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with measuring(file.parent, allow_concurrent=trials[0]["allow_concurrent"]):
        for trial in trials:
            _measure(trial, file.parent)
    return file


def _tiles(asked: Any) -> list[Any]:
    tiles = list(asked) if isinstance(asked, list) else [asked]
    if not tiles:
        raise ConfigError("tile=[]: must be a tile size, or a list of them: tile=[8,16]")
    if "auto" in tiles:
        raise ConfigError("tile=auto: a calibration needs the sizes themselves: tile=[8,16]")
    if any(isinstance(tile, Mapping) for tile in tiles):
        raise ConfigError(f"tile={asked}: a calibration takes the sizes one by one: tile=[8,16]")
    return tiles


def _trial(config: Mapping[str, Any], tile: Any) -> dict[str, Any]:
    """The configuration of a trial with this tile size, under StarPU's eager, which needs no expectations."""
    limit_s, fresh, file, schedulers = (config.get(key) for key in _OWN)
    if isinstance(limit_s, bool) or not isinstance(limit_s, int | float) or not limit_s > 0:
        raise ConfigError(f"limit_s={limit_s}: must be a number of seconds above 0")
    if not isinstance(fresh, bool):
        raise ConfigError(f"fresh={fresh}: must be true or false")
    if config["platform"].get("simulated", True):
        raise ConfigError(
            "platform: a simulated node has no tasks to measure; only platform=host can be calibrated"
        )
    path = default_path() if file is None else Path(str(file))
    return {
        **_defaults_of_a_run(),
        **{key: value for key, value in config.items() if key not in _OWN},
        "tile": tile,
        "evaluate": False,
        "scheduler": {"_target_": "schedulers.StarPUScheduler", "name": "eager"},
        "calibrate": {
            "file": str(path.absolute()),
            "fresh": fresh,
            "limit_s": float(limit_s),
            "schedulers": _schedulers(schedulers),
            "idle_s": float(config["energy"].get("idle_baseline_s", 0)),
        },
    }


def _schedulers(names: Any) -> dict[str, Any]:
    """The configurations of the schedulers under which mini-batches run, by name."""
    there = sorted(path.stem for path in (CONFIGS / "scheduler").glob("*.yaml"))
    if not isinstance(names, list) or not set(names) <= set(there):
        raise ConfigError(f"schedulers={names}: must be a list of names; there are: {', '.join(there)}")
    files = {name: OmegaConf.load(CONFIGS / "scheduler" / f"{name}.yaml") for name in names}
    return {name: OmegaConf.to_container(file) for name, file in files.items()}


def _defaults_of_a_run() -> dict[str, Any]:
    """What a run has that a calibration does not ask for."""
    run = OmegaConf.to_container(OmegaConf.load(CONFIGS / "run.yaml"))
    assert isinstance(run, dict)
    chosen = [item for item in run.pop("defaults") if isinstance(item, dict)]
    groups = {group: option for item in chosen for group, option in item.items() if group in GROUPS}
    run.pop("hydra")
    files = {group: OmegaConf.load(CONFIGS / group / f"{option}.yaml") for group, option in groups.items()}
    values = {group: OmegaConf.to_container(file) for group, file in files.items()}
    return split_workers({str(key): value for key, value in (values | run).items()})


def _measure(trial: dict[str, Any], where: Path) -> None:
    """Measure one tile size in a process of its own, with a bar."""
    from rich.console import Console

    from experiments.calibrate_progress import CalibrationDisplay

    folder = Path(tempfile.mkdtemp(prefix=".calibrate-", dir=where))
    records.write_config(folder, trial)
    console = Console()
    display = CalibrationDisplay(console, f"tile {trial['tile']}")

    def take(event: Event) -> None:
        display.take(event)

    try:
        with display:
            outcome = supervise(
                (*TILE_COMMAND, str(folder)), folder, take, environment=trial_environment(folder)
            )
        display.show_end(Path(trial["calibrate"]["file"]))
        _judge(outcome, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judge(outcome: Outcome, folder: Path) -> None:
    if outcome.stopped_by is not None:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(128 + outcome.stopped_by)
    if outcome.status != "finished":
        for line in () if outcome.explained else log_tail(folder):
            _say(f"log: {line}")
        raise CalibrateFailedError(str(outcome.error))


def _keys() -> list[str]:
    """The keys of the command's configuration."""
    config = OmegaConf.load(CONFIGS / "calibrate.yaml")
    assert isinstance(config, DictConfig)
    groups = [str(key) for item in config.pop("defaults") if isinstance(item, DictConfig) for key in item]
    return [*(key for key in groups if "/" not in key), *(str(key) for key in config if key != "hydra")]


_problems: list[tuple[int, str]] = []
_started: list[DictConfig] = []


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="calibrate")
def _hydra_main(cfg: DictConfig) -> None:
    _started.append(cfg)
    try:
        file = calibrate(cfg)
    except CalibrateFailedError as error:
        _problems.append((1, str(error)))
    except (ConfigError, MeasuredFileError, MachineBusyError) as error:
        _problems.append((2, str(error)))
    except OSError as error:  # such as a disk that is full
        _problems.append((1, str(error)))
    else:
        print(f"measurements: {file}")


def main() -> int:
    """Run the command; returns its exit status."""
    overrides = sys.argv[1:]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    try:
        _hydra_main()
    except Exception as error:
        if _started:
            raise
        _say(explain(error, overrides, _keys()))
        return 2
    except KeyboardInterrupt:
        return 130
    for _, message in _problems:
        _say(message)
    return max((status for status, _ in _problems), default=0)


def _say(message: str) -> None:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
