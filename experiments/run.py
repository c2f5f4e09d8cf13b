"""`python -m experiments.run`: train under one scheduler, or with -m under several, and record the joules.

This process composes and checks the configuration, makes the folder of the run, starts the trial in a process
of its own and records how it ended. It never loads StarPU, and nothing heavy before the trial has started.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import environment, records, statuses
from experiments.explain import explain
from experiments.identity import Recorded, identity, recorded
from experiments.machine_lock import MachineBusyError, measuring
from experiments.run_lock import RunLock
from experiments.summary import scheduler_name, summarise
from experiments.supervisor import Outcome, log_tail, supervise
from experiments.validation import CHECKOUT, CONFIGS, ConfigError, split_workers, validate

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.progress import TrialDisplay

TRIAL_COMMAND = (sys.executable, "-m", "experiments.trial")

NOT_CONFIGURED = ("choices", "sweep", "position")
"""What `resolved` adds to a configuration."""

_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class TrialFailedError(Exception):
    """A trial did not finish; what is to be said about it has been said."""


def run_trial(cfg: DictConfig) -> None:
    """Check a composed configuration, run it as one trial, and leave its records behind.

    With `resume` a trial whose outcome the folder of the runs has is not run again.
    Raises ConfigError, OutputFolderError, MachineBusyError, TrialFailedError; SystemExit (128 + signal) where it was
    stopped.
    """
    config = resolved(cfg)
    validate({key: value for key, value in config.items() if key not in NOT_CONFIGURED})
    if config["repeats"] > 1 and config["sweep"] is None:
        raise ConfigError(f"repeats={config['repeats']}: repeats need -m (one trial for each)")
    experiment = config["name"] or config["choices"]["experiment"] or "trials"
    experiment_dir = records.experiment_dir(Path(config["output"]), experiment)
    if config["resume"] and _is_recorded(experiment_dir, config):
        return
    simulated = config["platform"].get("simulated", True)
    alone = measuring(experiment_dir, allow_concurrent=config["allow_concurrent"])
    with nullcontext() if simulated else alone:
        run_dir = records.new_run_dir(
            Path(config["output"]), experiment, scheduler_name(config), config["choices"]["model"]
        )
        with nullcontext() if simulated else measuring(run_dir, allow_concurrent=True):
            outcome = run_recorded(run_dir, config)
    if outcome.stopped_by is not None:
        raise SystemExit(128 + outcome.stopped_by)
    if outcome.status != "finished":
        raise TrialFailedError(outcome.error)


def run_recorded(run_dir: Path, config: dict[str, Any], console: Console | None = None) -> Outcome:
    """Run a configuration that has been checked as one trial, into its new folder; returns how it ended.

    What is to be seen of it goes to `console`, the terminal by default.
    """
    lock = RunLock(run_dir)
    records.write_config(run_dir, config)
    records.write_json(run_dir / records.ENVIRONMENT_NAME, environment.collect(CHECKOUT))
    records.write_json(run_dir / records.SUMMARY_NAME, summarise(config, [], status="running"))
    try:
        return _supervised(run_dir, config, console)
    finally:
        lock.release()


def _is_recorded(experiment_dir: Path, config: dict[str, Any]) -> bool:
    """Whether there is no need to run a trial, which is said; those that were cut off are made whole records.

    Raises TrialFailedError where its outcome is a failure that is not to be tried again.
    """
    earlier = list(recorded(experiment_dir, identity(config)))
    for found in earlier:
        if found.state == "cut off":
            close_cut_off(found)
    wanted = {"finished"} if config["resume"] == "failed" else {"finished", "failed"}
    for found in earlier:
        if found.state == "running" or (found.state == "outcome" and found.status in wanted):
            print(f"{found.status} already: {found.run_dir}")
            if found.status == "failed":
                raise TrialFailedError(f"{found.run_dir}: failed")
            return True
    return False


def close_cut_off(found: Recorded) -> None:
    """Make whole records of a trial whose supervisor was killed; it has no outcome."""
    if found.status == "interrupted":
        return
    from experiments.tables import finish_tables, read_table

    torn = [f"{name}: the last rows were incomplete" for name in finish_tables(found.run_dir)]
    records.remove_leftovers(found.run_dir)
    table, _ = read_table(found.run_dir, "epochs")
    epochs = [] if table is None else table.to_pylist()
    error = "; ".join(["cut off: the process that ran it was killed", *torn])
    config = records.read_config(found.run_dir)
    summary = summarise(config, epochs, status="interrupted", error=error)
    records.write_json(found.run_dir / records.SUMMARY_NAME, summary)
    RunLock.remove(found.run_dir)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The composed configuration as plain values, with the name chosen in each group under `choices`.

    `sweep` is the folder that the trials of a sweep share, `position` the trial's place in the order of the sweep,
    from 0; both are None for a trial by itself.
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
    sweep = position = None
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        sweep = str(Path(HydraConfig.get().sweep.dir).absolute())
        position = int(HydraConfig.get().job.num)
    plain = split_workers({str(key): value for key, value in config.items()})
    return {**plain, "choices": named, "sweep": sweep, "position": position}


def _supervised(run_dir: Path, config: dict[str, Any], shown_on: Console | None) -> Outcome:
    from rich.console import Console

    from experiments.progress import TrialDisplay, show_end

    console = shown_on or Console()
    choices = config["choices"]
    parts = [scheduler_name(config), *(choices[key] for key in ("model", "dataset", "platform"))]
    display = TrialDisplay(console, " · ".join(parts), config["epochs"])
    command = (*TRIAL_COMMAND, str(run_dir))
    try:
        with display:
            outcome = supervise(
                command,
                run_dir,
                display.take,
                environment=trial_environment(run_dir),
                timeout_s=config["timeout_s"],
            )
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
        display.whole,
        status=outcome.status,
        error=None if outcome.error is None else "; ".join([outcome.error, *torn]),
        simulated=display.started.get("simulated"),
        weights_sha256=result.get("weights_sha256"),
        idle_drifted=result.get("idle_drifted"),
        energy_trouble=result.get("energy_trouble"),
        moved_bytes=result.get("moved_bytes"),
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


_started: list[DictConfig] = []
"""The configurations that Hydra has composed so far: an error after the first is not about composing."""


def run_and_tell(cfg: DictConfig) -> int:
    """Run one trial and say what kept it from finishing; returns its exit status."""
    _started.append(cfg)
    if _user_wants_tracebacks:
        run_trial(cfg)
        return 0
    try:
        run_trial(cfg)
    except TrialFailedError:
        return 1
    except (ConfigError, records.OutputFolderError, MachineBusyError) as error:
        say(str(error))
        return 2
    except OSError as error:  # such as a disk that is full
        say(str(error))
        return 1
    return 0


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="run")
def _hydra_main(cfg: DictConfig) -> int:
    status = run_and_tell(cfg)
    statuses.add(status)
    return status


_user_wants_tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"


def main() -> int:
    """Run the command; returns its exit status."""
    sys.argv[1:] = overrides = [_plain_experiment(argument) for argument in sys.argv[1:]]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    try:
        _hydra_main()
    except (MachineBusyError, ConfigError) as error:  # of a launcher, before its first trial
        say(str(error))
        return 2
    except Exception as error:
        # Hydra raises a plain ValueError or TypeError, too, for a group that is given a number or null.
        if _user_wants_tracebacks or _started:
            raise
        say(explain(error, overrides))
        return 2
    except KeyboardInterrupt:
        return 130
    return statuses.worst()


def _plain_experiment(argument: str) -> str:
    """`+experiment=NAME` as `experiment=NAME`: the group has a default, so Hydra refuses the plus."""
    return argument.removeprefix("+") if argument.startswith("+experiment=") else argument


def say(message: str) -> None:
    """Print what is wrong on stderr."""
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
