"""`python -m experiments.pareto platform=NAME ...`: energy against time of many policies, and the bound below them.

Takes the overrides of `experiments.run`, and those of `configs/pareto.yaml` as `pareto.KEY=VALUE`. Runs each policy
with each of its parameters as a trial of its own on a simulated node, prints the table, names the front and writes
`pareto.json`, `pareto.png` and `pareto.pdf` into the folder of the trials.

`python -m experiments.pareto --table FOLDER...` reads what sweeps under these folders have left, and prints how far the
best policies are from the bound and, for small graphs, from the best schedule, as Markdown.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments import environment, records
from experiments.bounds import EpochWork, read_work
from experiments.explain import explain
from experiments.fronts import Comparison, Point, Side, compare, front_of, least_seconds
from experiments.layout import lay_out_epoch
from experiments.pareto_table import print_table
from experiments.run import NOT_CONFIGURED, TRIAL_COMMAND, finalise, resolved, trial_environment
from experiments.summary import scheduler_name, summarise
from experiments.supervisor import supervise
from experiments.validation import CHECKOUT, CONFIGS, ConfigError, validate
from schedulers.bounds import BoundError, FrontPoint

NAME = "pareto"
ALWAYS = ("epochs=1", "evaluate=false", "trace=false", "bound=false")
_KEYS = ("ours", "starpu", "slowdown", "seeds", "deadline_s", "cap_w")


@final
@dataclass(frozen=True)
class Sweep:
    """What `configs/pareto.yaml` says, with what the command line replaced."""

    trials: tuple[tuple[str, Side, tuple[str, ...]], ...]
    """Label, side, and overrides of each."""
    slowdown: float
    seeds: tuple[int, ...]
    deadline_s: float | None
    cap_w: float | None


@final
@dataclass(frozen=True)
class Swept:
    """A finished sweep for one seed."""

    seed: int
    points: list[Point]
    work: EpochWork
    comparison: Comparison
    bound: list[FrontPoint]


def load_sweep(overrides: Sequence[str]) -> Sweep:
    """Return the sweep; raises ConfigError naming the key that cannot be."""
    settings: Any = OmegaConf.load(CONFIGS / "pareto.yaml")
    given: Any = OmegaConf.from_dotlist(list(overrides))
    for key in given:
        if key not in _KEYS:
            raise ConfigError(f"unknown key 'pareto.{key}'; there are: {', '.join(_KEYS)}")
        settings[key] = given[key]
    plain: Any = OmegaConf.to_container(settings)
    for key in ("slowdown", "deadline_s", "cap_w"):
        value, least = plain[key], 1 if key == "slowdown" else 0
        absent = value is None and key != "slowdown"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not absent and not (number and least <= value < float("inf") and value > 0):
            raise ConfigError(f"pareto.{key}={value}: must be a number, at least {least}, above 0")
    seeds = plain["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"pareto.seeds={seeds}: must be a list of whole numbers, at least 0")
    trials = [*_trials("ours", plain["ours"]), *_trials("starpu", plain["starpu"])]
    if not trials:
        raise ConfigError("pareto.ours and pareto.starpu name no policy")
    return Sweep(tuple(trials), plain["slowdown"], tuple(seeds), plain["deadline_s"], plain["cap_w"])


def _trials(side: Side, policies: Any) -> list[tuple[str, Side, tuple[str, ...]]]:
    if not isinstance(policies, Mapping):
        raise ConfigError(f"pareto.{side}={policies}: must be policies with lists of values by parameter")
    found: list[tuple[str, Side, tuple[str, ...]]] = []
    for name, parameters in policies.items():
        if name == "names":
            found += [(own, side, ("scheduler=starpu", f"scheduler.name={own}")) for own in parameters]
            continue
        if not isinstance(parameters, Mapping) or not all(isinstance(v, list) for v in parameters.values()):
            raise ConfigError(f"pareto.{side}.{name}={parameters}: must be lists of values by parameter")
        for values in itertools.product(*parameters.values()):
            chosen = [f"{key}={_shown(value)}" for key, value in zip(parameters, values, strict=True)]
            overrides = (f"scheduler={name}", *(f"scheduler.{one}" for one in chosen))
            found.append((" ".join([str(name), *chosen]), side, overrides))
    return found


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of one trial, checked; raises ConfigError, or what Hydra raises for an unknown name."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("run", overrides=[*ALWAYS, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        config = resolved(cfg)
    validate({key: value for key, value in config.items() if key not in NOT_CONFIGURED})
    if not config["platform"].get("simulated", True):
        raise ConfigError(
            "experiments.pareto compares with a bound of the model: give a simulated platform=NAME"
        )
    return config


def run_one(config: dict[str, Any], folder: Path, label: str, side: Side) -> tuple[Point, Path]:
    """Run one trial and return its point with its folder."""
    from rich.console import Console

    from experiments.progress import TrialDisplay

    run_dir = records.new_run_dir(folder, "trials", scheduler_name(config), config["choices"]["workload"])
    records.write_config(run_dir, config)
    records.write_json(run_dir / records.SUMMARY_NAME, summarise(config, [], status="running"))
    records.write_json(run_dir / records.ENVIRONMENT_NAME, environment.collect(CHECKOUT))
    with open(os.devnull, "w") as nowhere:
        display = TrialDisplay(Console(file=nowhere), label, config["epochs"])
        outcome = supervise(
            (*TRIAL_COMMAND, str(run_dir)), run_dir, display.take, environment=trial_environment(run_dir)
        )
        finalise(run_dir, config, display, outcome)
    if outcome.stopped_by is not None:
        raise SystemExit(128 + outcome.stopped_by)
    summary = records.read_json(run_dir / records.SUMMARY_NAME)
    return Point(
        label, side, summary["seconds_per_epoch"], summary["joules_per_epoch"], outcome.error
    ), run_dir


def seeded_configs(sweep: Sweep, seed: int, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """The configuration of each trial for one seed."""
    seeded = [f"seed={seed}", f"estimates.seed={seed}"]
    if composed(overrides)["choices"]["workload"] == "layered":
        seeded.append(f"workload.seed={seed}")
    return [composed([*overrides, *own, *seeded]) for _, _, own in sweep.trials]


def check_limits(sweep: Sweep, by_seed: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
    """Raise BoundError, before any trial runs, for a deadline or a cap that no schedule of the tasks keeps."""
    if sweep.deadline_s is None and sweep.cap_w is None:
        return
    for configs in by_seed.values():
        check_bounds(lay_out_epoch(configs[0]), sweep)


def sweep_seed(sweep: Sweep, seed: int, configs: Sequence[dict[str, Any]], folder: Path, say: Any) -> Swept:
    """Run every trial for one seed."""
    points: list[Point] = []
    work: EpochWork | None = None
    for (label, side, _), config in zip(sweep.trials, configs, strict=True):
        point, run_dir = run_one(config, folder, label, side)
        say(f"{label}: {_figures(point)}")
        points.append(point)
        if work is None and (run_dir / records.GRAPH_NAME).exists():
            work = read_work(run_dir)
    if work is None:
        raise ValueError(f"no trial came to its first task: {points[0].error}")
    deadline_s = sweep.deadline_s or sweep.slowdown * least_seconds(points)
    latest_s = max(point.seconds for point in points if point.seconds is not None)
    return Swept(seed, points, work, compare(points, work, deadline_s), work.front(latest_s))


def check_bounds(work: EpochWork, sweep: Sweep) -> None:
    """Raise BoundError for a deadline or a cap that no schedule keeps."""
    try:
        if sweep.deadline_s is not None:
            work.least(sweep.deadline_s)
        if sweep.cap_w is not None:
            work.least(cap_w=sweep.cap_w)
    except BoundError as error:
        raise BoundError(f"pareto.{error}; no policy was run") from error


def _figures(point: Point) -> str:
    if point.place is None:
        return f"did not finish ({point.error})"
    return f"{point.place.energy_j:.4g} J, {point.place.seconds:.4g} s"


def show(swept: Swept) -> None:
    """Print the table, the front and the comparison."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if os.isatty(1) else 120)
    on_front = front_of(swept.points)
    table = Table("policy", "of", "J", "s", "times the least J", "controllable", "front")
    for column in table.columns[2:]:
        column.justify = "right"
    for point in sorted(swept.points, key=lambda p: (p.joules is None, p.joules or 0.0)):
        ratios = swept.work.ratios(point.joules)
        cells = [
            "" if value is None else f"{value:#.4g}"
            for value in (point.joules, point.seconds, *ratios.values())
        ]
        table.add_row(point.label, point.side, *cells, "*" if point in on_front else "")
    console.print(table)
    found = swept.comparison
    for line in comparison_lines(found):
        console.print(line, highlight=False, markup=False)
    failed = [f"{point.label}: {point.error}" for point in swept.points if point.place is None]
    for line in failed:
        console.print(f"did not finish: {line}", highlight=False, markup=False)


def comparison_lines(found: Comparison) -> list[str]:
    """What a comparison says."""
    lines = [
        f"By {found.deadline_s:.4g} s no schedule takes less than {found.bound_j:.4g} J, "
        f"of which placement can change {found.bound_controllable_j:.4g} J."
    ]
    for name, best in (("this project's", found.ours), ("StarPU's", found.starpu)):
        if best.label is None:
            lines.append(f"None of {name} policies ends by then.")
        else:
            over = (
                ""
                if best.over_bound is None
                else f", {best.over_bound:.3f} times the bound's controllable joules"
            )
            lines.append(f"Best of {name} by then: {best.label}, {best.joules:.4g} J{over}.")
    lines.append(
        f"Hypervolume below {found.reference.seconds:.4g} s and {found.reference.energy_j:.4g} J: "
        f"{found.ours_hypervolume:.4g} J s this project's, {found.starpu_hypervolume:.4g} J s StarPU's."
    )
    return lines


def run(overrides: Sequence[str], sweep: Sweep, say: Any) -> tuple[list[Swept], Path]:
    """Run the sweep for every seed and leave its records; returns them with their folder."""
    config = composed(overrides)
    parts = [config["choices"]["platform"], config["choices"]["workload"]]
    if config["choices"]["workload"] == "cnn":
        parts[1] = str(config["choices"]["model"])
    parts[0] += ", free links" if config["platform"].get("free_links") else ""
    parts[0] += ", allocated" if config["platform"].get("allocated") else ""
    by_seed = {seed: seeded_configs(sweep, seed, overrides) for seed in sweep.seeds}
    check_limits(sweep, by_seed)
    folder = records.new_run_dir(Path(config["output"]), config["name"] or NAME, *parts)
    found = []
    for seed, configs in by_seed.items():
        swept = sweep_seed(sweep, seed, configs, folder / f"seed{seed}", say)
        found.append(swept)
        record = {
            "seed": seed,
            "points": [asdict(point) for point in swept.points],
            "front": [point.label for point in front_of(swept.points)],
            "bound": [asdict(point) for point in swept.bound],
            "comparison": asdict(swept.comparison),
        }
        stem = folder / (NAME if len(sweep.seeds) == 1 else f"{NAME}_seed{seed}")
        records.write_json(stem.with_suffix(".json"), record | {"name": " · ".join(parts)})
        records.write_json(folder / f"{stem.name}_{records.GRAPH_NAME}", {"work": swept.work.to_json()})
        from experiments.pareto_plot import plot

        plot(swept.points, swept.bound, swept.comparison.deadline_s, " · ".join(parts), stem)
    return found, folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    if given[:1] == ["--table"]:
        return print_table([Path(folder) for folder in given[1:]])
    own = [argument.removeprefix("pareto.") for argument in given if argument.startswith("pareto.")]
    overrides = [argument for argument in given if not argument.startswith("pareto.")]
    try:
        sweep = load_sweep(own)
        found, folder = run(overrides, sweep, lambda line: print(line, flush=True))
    except (ConfigError, BoundError, records.OutputFolderError, OmegaConfBaseException) as error:
        return _refuse(str(error))
    except ValueError as error:
        return _refuse(str(error))
    except Exception as error:
        if not type(error).__module__.startswith("hydra."):
            raise
        return _refuse(explain(error, overrides))
    for swept in found:
        show(swept)
    print(f"records: {folder}")
    return 0


def _refuse(message: str) -> int:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
