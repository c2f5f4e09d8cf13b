"""Trials on this machine: those that measure it one after the other, simulations on all cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import final

from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from experiments.forks import run_forked
from experiments.machine_lock import measuring


@final
class LocalLauncher(Launcher):
    """Measured trials come first, by themselves and with the machine's lock held throughout."""

    def __init__(self) -> None:
        self._config: DictConfig | None = None
        self._context: HydraContext | None = None
        self._task: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's: take the primary configuration and what runs a trial."""
        self._config, self._context, self._task = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; returns how each ended, in the order in which they were given.

        Raises MachineBusyError where another run measures on this machine.
        """
        assert self._config is not None
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        sweep_dir = Path(str(self._config.hydra.sweep.dir))
        sweep_dir.mkdir(parents=True, exist_ok=True)
        jobs = {
            number: self._composed(overrides, number)
            for number, overrides in enumerate(job_overrides, start=initial_job_idx)
        }
        simulated = [number for number, config in jobs.items() if config.platform.get("simulated", True)]
        measured = [number for number in jobs if number not in simulated]
        alone = measuring(sweep_dir.absolute(), allow_concurrent=bool(self._config.allow_concurrent))
        ended: dict[int, JobReturn] = {}
        with alone if measured else nullcontext():
            for number in measured:
                ended[number] = self._run(jobs[number])
        ended |= self._run_together({number: jobs[number] for number in simulated})
        return [ended[number] for number in jobs]

    def _composed(self, overrides: Sequence[str], number: int) -> DictConfig:
        assert self._context is not None
        assert self._config is not None
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config

    def _run(self, config: DictConfig) -> JobReturn:
        assert self._context is not None
        assert self._task is not None
        return run_job(
            hydra_context=self._context,
            task_function=self._task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def _run_together(self, jobs: dict[int, DictConfig]) -> dict[int, JobReturn]:
        """Run simulations, `jobs` at a time, each supervised by a process of its own."""
        assert self._config is not None
        at_once = min(self._config.jobs or len(os.sched_getaffinity(0)), len(jobs))
        if at_once <= 1:
            return {number: self._run(config) for number, config in jobs.items()}
        work = [lambda config=config: self._run(config).return_value for config in jobs.values()]
        statuses = run_forked(work, at_once)
        return {
            number: JobReturn(cfg=config, status=JobStatus.COMPLETED, _return_value=status)
            for (number, config), status in zip(jobs.items(), statuses, strict=True)
        }
