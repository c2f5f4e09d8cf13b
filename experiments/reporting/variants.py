"""What is compared with what: runs of one setting, told apart by the factors in which their configurations differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.identity import HOW_IT_RUNS
from experiments.runs import Run, RunsError, flat

SETTING = ("platform", "workload", "model", "dataset")
"""Runs that differ in one of these are never compared."""

NO_FACTORS = frozenset(
    (
        *HOW_IT_RUNS,
        "seed",
        "repeat",
        "trace",
        "bound",
        "evaluate",
        "dataset.cache_dir",
        "scheduler.compiled",
        "scheduler.explain",
        "estimates.seed",
    )
)
"""Keys that make repeats of one another, or say how a run is supervised and recorded."""

_NO_FACTOR_GROUPS = ("choices", "framework", "hydra")
"""What the setting's names and that of the scheduler say (`torch+compile`)."""
_ABSENT = object()


Factors = tuple[tuple[str, str], ...]
"""Scheduler, framework and configuration keys with their values, in order."""


def setting_of(run: Run) -> tuple[str, ...]:
    """Platform, workload, model and data set, with the number of its images where only some are trained on."""
    *others, dataset = (str(run.summary.get(name)) for name in SETTING)
    images = (run.config.get("dataset") or {}).get("train_size")
    return (*others, dataset if images is None else f"{dataset} ({images:,} images)")


def setting_title(setting: Sequence[str]) -> str:
    """The setting in a heading; model and data set say nothing of a graph that is no training."""
    platform, workload, model, dataset = setting
    return f"{platform} · {model} · {dataset}" if workload == "cnn" else f"{platform} · {workload}"


def factors_of(runs: Sequence[Run]) -> list[Factors]:
    """What tells the runs of one setting apart, run by run; the scheduler always does.

    A scheduler's parameter is a factor where it differs between runs of that scheduler.
    """
    configs = [_comparable(run.config) for run in runs]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    common = [key for key in keys if not key.startswith("scheduler.") and _differs(key, configs)]
    frameworks = {run.summary["framework"] for run in runs}
    found = []
    for run, config in zip(runs, configs, strict=True):
        same = [
            other
            for other, of in zip(configs, runs, strict=True)
            if of.summary["scheduler"] == run.summary["scheduler"]
        ]
        own = [key for key in config if key.startswith("scheduler.") and _differs(key, same)]
        factors = [("scheduler", str(run.summary["scheduler"]))]
        factors += [("framework", str(run.summary["framework"]))] * (len(frameworks) > 1)
        factors += [(key, _text(config[key])) for key in [*common, *own] if key in config]
        found.append(tuple(factors))
    return found


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that may be factors: not those that are one of the setting's, nor what the scheduler is called by."""
    return {
        key: value
        for key, value in flat(config).items()
        if key not in NO_FACTORS
        and key.partition(".")[0] not in _NO_FACTOR_GROUPS
        and key != "scheduler.name"
        and "_target_" not in key
    }


def _differs(key: str, configs: Iterable[Mapping[str, Any]]) -> bool:
    return len({_text(config.get(key, _ABSENT)) for config in configs}) > 1


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    return "all" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def label_of(factors: Factors) -> str:
    """The factors as a plot names them: the scheduler, which for PyTorch says so, then the others."""
    (_, scheduler), *others = factors
    shown = [
        value if key == "label" else f"{key.removeprefix('scheduler.')}={value}"
        for key, value in others
        if key != "framework"
    ]
    return f"{scheduler} ({', '.join(shown)})" if shown else scheduler


def baseline_of(factors: Factors, asked: Mapping[str, str], there_are: Iterable[Factors]) -> Factors | None:
    """The variant that another is set against: the same, but for the factors that `asked` names.

    A scheduler's own parameters do not go along to another scheduler, nor the scheduler to another framework.
    None where there is no such variant.
    Raises RunsError where several would do.
    """
    own = dict(factors)
    dropped = {"scheduler": "scheduler.", "framework": "scheduler"}
    for key, start in dropped.items():
        if key in asked and asked[key] != own.get(key):
            own = {name: value for name, value in own.items() if not name.startswith(start)}
    wanted = {**own, **asked}
    fit = [other for other in there_are if _holds(dict(other), wanted)]
    if len(fit) > 1:
        labels = "; ".join(label_of(other) for other in fit)
        raise RunsError(
            f"--baseline {' '.join(f'{key}={value}' for key, value in asked.items())} fits several: {labels}; "
            f"name another factor too, such as {fit[0][-1][0]}={fit[0][-1][1]}"
        )
    return fit[0] if fit else None


def _holds(other: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a variant has the wanted factors; of parameters that only one of both schedulers has, none speaks."""
    return all(
        other.get(key) == value for key, value in wanted.items() if key in other or "scheduler." not in key
    )


def parse_baseline(texts: Sequence[str]) -> dict[str, str]:
    """`eager` or `scheduler=eager framework=torch` as factors."""
    pairs = [text.split("=", 1) if "=" in text else ["scheduler", text] for text in texts]
    return {pair[0]: pair[1] for pair in pairs}
