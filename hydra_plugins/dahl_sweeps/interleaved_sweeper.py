"""Every combination of a sweep's values, repeated, each round of repeats in an order of its own."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from experiments import statuses

Job = tuple[str, ...]


@final
class InterleavedSweeper(Sweeper):
    """`params` are values by key, as on the command line, which wins over them.

    The combinations run `repeats` times, `repeat` counting them, each round of all combinations in an order drawn
    from `order_seed`: what drifts while the sweep runs meets every configuration alike.
    """

    def __init__(self, params: Mapping[str, str] | None = None) -> None:
        self._params = params or {}
        self.hydra_context: HydraContext | None = None
        self._launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's: take the primary configuration, and make the launcher."""
        self.config = config
        self.hydra_context = hydra_context
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch every trial; returns what the launcher returns."""
        assert self.config is not None
        assert self.hydra_context is not None
        assert self._launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = [f"{key}={value}" for key, value in self._params.items()]
        choices = combinations(parser.parse_overrides([*given, *arguments]))
        jobs = interleave(choices, int(self.config.repeats), self.config.order_seed)
        sweep_dir = Path(self.config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, sweep_dir / "multirun.yaml")
        # This project's launchers compose every job before the first one starts: an error shows at once.
        results = self._launcher.launch(jobs, initial_job_idx=0)
        for result in results:
            statuses.add(result.return_value)  # raises what a job has raised
        return results


def combinations(overrides: Sequence[Override]) -> list[Job]:
    """Every combination of the values of these overrides; of two for one key the later one holds."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise HydraException(
                f"{override.input_line}: a sweep needs values that can be counted: a list or a glob"
            )
    return list(itertools.product(*values.values()))


def interleave(choices: Sequence[Job], repeats: int, order_seed: int | None) -> list[Job]:
    """The jobs in their order: round by round, each round shuffled unless the seed is None."""
    draw = None if order_seed is None else random.Random(order_seed)
    jobs: list[Job] = []
    for repeat in range(1, repeats + 1):
        round_ = list(choices)
        if draw is not None:
            draw.shuffle(round_)
        jobs += [job if repeats == 1 else (*job, f"repeat={repeat}") for job in round_]
    return jobs
