"""`python -m experiments.run`: train under one scheduler, or with -m under several, and record the joules.

This process composes and checks the configuration, makes the folder of the run, starts the trial in a process
of its own and records how it ended. It never loads StarPU, and nothing heavy before the trial has started.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import environment, records
from experiments.explain import explain
from experiments.summary import scheduler_name, summarise
from experiments.supervisor import Outcome, log_tail, supervise
from experiments.validation import CHECKOUT, CONFIGS, ConfigError, validate

if TYPE_CHECKING:
    from experiments.progress import TrialDisplay

TRIAL_COMMAND = (sys.executable, "-m", "experiments.trial")

_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class TrialFailedError(Exception):
    """A trial did not finish; what is to be said about it has been said."""


def run_trial(cfg: DictConfig) -> None:
    """Check a composed configuration, run it as one trial, and leave its records behind.

    Raises ConfigError, OutputFolderError, TrialFailedError; SystemExit (128 + signal) where it was stopped.
    """
    config = resolved(cfg)
    validate({key: value for key, value in config.items() if key not in ("choices", "sweep")})
    experiment = config["name"] or config["choices"]["experiment"] or "trials"
    run_dir = records.new_run_dir(
        Path(config["output"]), experiment, scheduler_name(config), config["choices"]["model"]
    )
    records.write_config(run_dir, config)
    records.write_json(run_dir / records.SUMMARY_NAME, summarise(config, [], status="running"))
    records.write_json(run_dir / records.ENVIRONMENT_NAME, environment.collect(CHECKOUT))
    outcome = _supervised(run_dir, config)
    if outcome.stopped_by is not None:
        raise SystemExit(128 + outcome.stopped_by)
    if outcome.status != "finished":
        raise TrialFailedError(outcome.error)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The composed configuration as plain values, with the name chosen in each group under `choices`.

    `sweep` is the folder that the trials of a sweep share, None for a trial by itself.
    A relative `dataset.cache_dir` is one inside the checkout, from wherever the command runs.
    Raises ConfigError where an interpolation cannot be resolved.
    """
    try:
        config = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    assert isinstance(config, dict)
    dataset = config.get("dataset")
    if isinstance(dataset, dict) and isinstance(dataset.get("cache_dir"), str):
        dataset["cache_dir"] = str(CHECKOUT / dataset["cache_dir"])
    choices = HydraConfig.get().runtime.choices
    named = {
        name: choices.get(name)
        for name in (
            "framework",
            "scheduler",
            "workload",
            "model",
            "dataset",
            "energy",
            "platform",
            "experiment",
        )
    }
    sweep = None
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        sweep = str(Path(HydraConfig.get().sweep.dir).absolute())
    return {**{str(key): value for key, value in config.items()}, "choices": named, "sweep": sweep}


def _supervised(run_dir: Path, config: dict[str, Any]) -> Outcome:
    from rich.console import Console

    from experiments.progress import TrialDisplay, show_end

    console = Console()
    choices = config["choices"]
    parts = [scheduler_name(config), *(choices[key] for key in ("model", "dataset", "platform"))]
    display = TrialDisplay(console, " · ".join(parts), config["epochs"])
    command = (*TRIAL_COMMAND, str(run_dir))
    try:
        with display:
            outcome = supervise(command, run_dir, display.take, environment=trial_environment(run_dir))
    except BaseException as error:  # such as stdout that was closed: the supervisor has ended the trial
        cause = f"stopped, since what shows it failed ({type(error).__name__})"
        finalise(run_dir, config, display, Outcome("failed", cause, None, None))
        raise
    torn = finalise(run_dir, config, display, outcome)
    show_end(console, display, outcome, run_dir, log_tail(run_dir), torn)
    return outcome


def finalise(run_dir: Path, config: dict[str, Any], display: TrialDisplay, outcome: Outcome) -> list[str]:
    """Leave whole records behind, whatever the trial did: tables as Parquet, the summary with its cause.

    Returns one line for each table that lost its last, incomplete rows.
    """
    torn: list[str] = []
    if any(run_dir.glob("*.arrows")) or any(
        run_dir.glob("*.stream")
    ):  # the trial did not come to this itself
        from experiments.tables import finish_tables

        torn = [
            f"{name}: the last rows were incomplete and have been dropped" for name in finish_tables(run_dir)
        ]
    records.remove_leftovers(run_dir)
    result = outcome.result or {}
    summary = summarise(
        config,
        display.epochs,
        display.blocks,
        status=outcome.status,
        error=None if outcome.error is None else "; ".join([outcome.error, *torn]),
        simulated=display.started.get("simulated"),
        weights_sha256=result.get("weights_sha256"),
        idle_drifted=result.get("idle_drifted"),
        energy_trouble=result.get("energy_trouble"),
    )
    records.write_json(run_dir / records.SUMMARY_NAME, summary)
    return torn


def trial_environment(run_dir: Path) -> dict[str, str]:
    """The environment of a trial: one BLAS thread per worker, StarPU's files in the run's own folder."""
    child = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    child.update(dict.fromkeys(_ONE_THREAD, "1"))
    child.update(
        PYTHONUNBUFFERED="1",
        PYTHONPATH=os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
        STARPU_HOME=str(run_dir / "starpu"),
        STARPU_PERF_MODEL_DIR=str(run_dir / "starpu" / "models"),
    )
    return child


_problems: list[tuple[int, str]] = []
"""Exit status and message of each trial that did not finish: Hydra would print a raise itself."""


_started: list[DictConfig] = []
"""The configurations that Hydra has composed so far: an error after the first is not about composing."""


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="run")
def _hydra_main(cfg: DictConfig) -> None:
    _started.append(cfg)
    if _user_wants_tracebacks:
        run_trial(cfg)
        return
    try:
        run_trial(cfg)
    except TrialFailedError as error:
        _problems.append((1, str(error)))
    except (ConfigError, records.OutputFolderError) as error:
        _problems.append((2, str(error)))
        _say(str(error))
    except OSError as error:  # such as a disk that is full
        _problems.append((1, str(error)))
        _say(str(error))


_user_wants_tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"


def main() -> int:
    """Run the command; returns its exit status."""
    sys.argv[1:] = overrides = [_plain_experiment(argument) for argument in sys.argv[1:]]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    try:
        _hydra_main()
    except Exception as error:
        # Hydra raises a plain ValueError or TypeError, too, for a group that is given a number or null.
        if _user_wants_tracebacks or _started:
            raise
        _say(explain(error, overrides))
        return 2
    except KeyboardInterrupt:
        return 130
    return max((status for status, _ in _problems), default=0)


def _plain_experiment(argument: str) -> str:
    """`+experiment=NAME` as `experiment=NAME`: the group has a default, so Hydra refuses the plus."""
    return argument.removeprefix("+") if argument.startswith("+experiment=") else argument


def _say(message: str) -> None:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
