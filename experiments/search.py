"""`python -m experiments.search platform=NAME ...`: which settings take few joules, and which few seconds?

Takes the overrides of `experiments.run`, and those of `configs/search.yaml` as `search.KEY=VALUE`. Optuna chooses the
settings of one trial after the other so that joules and seconds per epoch both become small; each is a trial like
any other, in the folder `output`/`name` (`runs/search` by default). Prints the front: what none beats in both.

The same command goes on where it was stopped: Optuna's journal lies in that folder. `search.json` has every point.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments import records
from experiments.explain import explain
from experiments.identity import HOW_IT_RUNS, identity, recorded
from experiments.machine_lock import MachineBusyError, measuring
from experiments.run import NOT_CONFIGURED, close_cut_off, resolved, run_recorded, say
from experiments.run_lock import RunLock
from experiments.summary import scheduler_name
from experiments.validation import CONFIGS, ConfigError, validate

NAME = "search"
SAMPLERS = ("nsga2", "tpe")
_KEYS = ("space", "trials", "sampler", "population", "seed")
_OBJECTIVES = ("joules_per_epoch", "seconds_per_epoch")


@final
@dataclass(frozen=True)
class Search:
    """What `configs/search.yaml` says, with what the command line replaced."""

    space: Mapping[str, Any]
    trials: int
    sampler: str
    population: int
    seed: int

    def sampler_of(self, number: int) -> Any:
        """A sampler that draws the settings of one trial from the seed, its number and the earlier trials alone."""
        import optuna

        own = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
        seed = int.from_bytes(own[:4], "big")
        if self.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        return optuna.samplers.NSGAIISampler(population_size=self.population, seed=seed)


def load_search(overrides: Sequence[str]) -> Search:
    """The search; raises ConfigError naming the key that cannot be."""
    settings: Any = OmegaConf.load(CONFIGS / "search.yaml")
    given: Any = OmegaConf.from_dotlist(list(overrides))
    for key in given:
        if key not in _KEYS:
            raise ConfigError(f"unknown key 'search.{key}'; there are: {', '.join(_KEYS)}")
        settings[key] = given[key]
    plain: Any = OmegaConf.to_container(settings)
    for key, least in (("trials", 1), ("population", 2), ("seed", 0)):
        if type(plain[key]) is not int or plain[key] < least:
            raise ConfigError(f"search.{key}={plain[key]}: must be a whole number, at least {least}")
    if plain["sampler"] not in SAMPLERS:
        raise ConfigError(f"search.sampler={plain['sampler']}: must be one of {', '.join(SAMPLERS)}")
    space = plain["space"]
    if not isinstance(space, dict) or not space:
        raise ConfigError(f"search.space={space}: must be values by key, such as {{tile: [8, 16]}}")
    for key, values in space.items():
        if not _is_range(values) and not (isinstance(values, list) and values):
            raise ConfigError(
                f"search.space.{key}={values}: must be a list of values, or {{low: 1, high: 2}}"
            )
    return Search(**plain)


def _is_range(values: Any) -> bool:
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= {"low", "high", "step", "log"}:
        return False
    numbers = [values[key] for key in values if key != "log"]
    return all(type(n) in (int, float) for n in numbers) and values["low"] <= values["high"]


def overrides_of(search: Search, trial: Any) -> list[str]:
    """The settings that Optuna gives a trial, as overrides of a run."""
    chosen = []
    for key, values in search.space.items():
        if isinstance(values, list):
            value = trial.suggest_categorical(key, values)
        elif isinstance(values["low"], int) and isinstance(values["high"], int):
            how = {"log": bool(values.get("log"))} if values.get("log") else {"step": values.get("step", 1)}
            value = trial.suggest_int(key, values["low"], values["high"], **how)
        else:
            value = trial.suggest_float(
                key, values["low"], values["high"], step=values.get("step"), log=bool(values.get("log"))
            )
        chosen.append(f"{key}={_hydra_value(value)}")
    return chosen


def _hydra_value(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of one trial; raises ConfigError, or what Hydra raises for an unknown name."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("run", overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        config = resolved(cfg)
    validate({key: value for key, value in config.items() if key not in NOT_CONFIGURED})
    return config


def open_study(search: Search, config: Mapping[str, Any], folder: Path) -> Any:
    """Optuna's study of this search, in the journal of its folder."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    base = {
        key: value for key, value in config.items() if key not in (*HOW_IT_RUNS, "choices", *search.space)
    }
    facts = [
        {key: value for key, value in asdict(search).items() if key != "trials"},
        base,
        config["choices"],
    ]
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "search.journal")))
    return optuna.create_study(
        storage=storage, study_name=name, directions=["minimize"] * 2, load_if_exists=True
    )


def outcomes(study: Any) -> list[Any]:
    """Its trials that have an outcome."""
    return [trial for trial in study.get_trials(deepcopy=False) if "run" in trial.user_attrs]


def try_one(search: Search, study: Any, overrides: Sequence[str], folder: Path) -> None:
    """Ask for the settings of the next trial, run it, and tell Optuna what it took."""
    import optuna

    study.sampler = search.sampler_of(len(outcomes(study)))
    # The one that was cut off, if one was, with the settings that it had; Optuna has no public name for its id.
    running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    trial = optuna.trial.Trial(study, running[0]._trial_id) if running else study.ask()
    chosen = overrides_of(search, trial)
    try:
        config = composed([*overrides, *chosen])
    except ConfigError as refused:  # such as a tile larger than the mini-batch
        trial.set_user_attr("run", None)
        trial.set_user_attr("error", str(refused))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        print(f"{' '.join(chosen)}: {refused}", flush=True)
        return
    run_dir, error = _recorded_run(config, folder)
    summary = records.read_json(run_dir / records.SUMMARY_NAME)
    found = [summary[name] for name in _OBJECTIVES]
    trial.set_user_attr("run", str(run_dir))
    trial.set_user_attr("error", error)
    trial.set_user_attr("quality", summary["energy_quality"])
    if error is not None or None in found:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        print(f"{' '.join(chosen)}: failed: {error or 'it has no joules'}", flush=True)
        return
    study.tell(trial, found)
    print(f"{' '.join(chosen)}: {found[0]:.4g} J, {found[1]:.4g} s", flush=True)


def _recorded_run(config: dict[str, Any], folder: Path) -> tuple[Path, str | None]:
    """Run a trial and return its folder and error; a simulation that is recorded there is not run again.

    A measured one is repeated, as the next of its repeats.
    """
    from rich.console import Console

    simulated = config["platform"].get("simulated", True)
    for found in recorded(folder, identity(config)):
        if found.state == "cut off":
            close_cut_off(found)
    earlier = [found for found in recorded(folder, identity(config)) if found.state == "outcome"]
    while earlier and not simulated:
        config = {**config, "repeat": config["repeat"] + 1}
        earlier = [found for found in recorded(folder, identity(config)) if found.state == "outcome"]
    if earlier:
        summary = records.read_json(earlier[-1].run_dir / records.SUMMARY_NAME)
        return earlier[-1].run_dir, summary["error"]
    run_dir = records.new_run_dir(
        folder.parent, folder.name, scheduler_name(config), config["choices"]["model"]
    )
    with open(os.devnull, "w") as nowhere:
        outcome = run_recorded(run_dir, config, Console(file=nowhere))
    if outcome.stopped_by is not None:
        raise SystemExit(128 + outcome.stopped_by)
    return run_dir, outcome.error


def run(search: Search, overrides: Sequence[str]) -> tuple[Any, Path]:
    """Try settings until there are as many outcomes as asked for; returns the study and its folder."""
    config = composed(overrides)
    folder = records.experiment_dir(Path(config["output"]), config["name"] or NAME)
    simulated = config["platform"].get("simulated", True)
    alone = measuring(folder, allow_concurrent=config["allow_concurrent"])
    with nullcontext() if simulated and "platform" not in search.space else alone:
        study = open_study(search, config, folder)
        if RunLock.is_held(folder):
            raise ConfigError(f"{folder}: another search runs there; wait for it, or give a name=")
        lock = RunLock(folder)
        try:
            while len(outcomes(study)) < search.trials:
                try_one(search, study, overrides, folder)
        finally:
            lock.release()
    return study, folder


def front(study: Any) -> list[Any]:
    """The trials that no other beats in joules and seconds, by joules; of equal ones the first."""
    best: dict[tuple[float, ...], Any] = {}
    for trial in study.best_trials:
        best.setdefault(tuple(trial.values), trial)
    return [best[values] for values in sorted(best)]


def show(study: Any, search: Search, folder: Path) -> None:
    """Print the front, and write every point to `search.json`."""
    from rich.console import Console
    from rich.table import Table

    on_front = {trial.number for trial in front(study)}
    points = [
        {
            "number": trial.number,
            "settings": trial.params,
            "joules_per_epoch": trial.values[0] if trial.values else None,
            "seconds_per_epoch": trial.values[1] if trial.values else None,
            "quality": trial.user_attrs.get("quality"),
            "run": trial.user_attrs["run"],
            "error": trial.user_attrs.get("error"),
            "front": trial.number in on_front,
        }
        for trial in outcomes(study)
    ]
    records.write_json(folder / "search.json", {"search": asdict(search), "points": points})
    qualities = sorted({str(point["quality"]) for point in points if point["front"]})
    table = Table(*search.space, f"J per epoch ({', '.join(qualities)})", "s per epoch", "run")
    for trial in front(study):
        settings = [_hydra_value(trial.params[key]) for key in search.space]
        table.add_row(
            *settings, *(f"{value:.4g}" for value in trial.values), Path(trial.user_attrs["run"]).name
        )
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    failed = sum(point["joules_per_epoch"] is None for point in points)
    print(f"{len(on_front)} of {len(points)} trials are on the front; {failed} did not finish")
    print(f"records: {folder}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    own = [argument.removeprefix("search.") for argument in given if argument.startswith("search.")]
    overrides = [argument for argument in given if not argument.startswith("search.")]
    try:
        search = load_search(own)
        study, folder = run(search, overrides)
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        say("experiments.search needs Optuna: pip install 'dahl[search]'")
        return 2
    except (ConfigError, records.OutputFolderError, MachineBusyError) as error:
        say(str(error))
        return 2
    except Exception as error:
        if not (type(error).__module__.startswith("hydra.") or isinstance(error, OmegaConfBaseException)):
            raise
        say(explain(error, overrides))
        return 2
    show(study, search, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
