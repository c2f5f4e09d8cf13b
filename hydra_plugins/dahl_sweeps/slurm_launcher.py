"""Trials as jobs of a Slurm cluster, through submitit."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from experiments.validation import ConfigError

POLL_S = 1.0
GONE_S = 20.0
"""A job that Slurm does not know any more has so long to leave its result: shared folders show it late."""


@final
class SlurmLauncher(Launcher):
    """Submits the trials as one array and waits for them. `options` are sbatch's, by its names; null leaves one out.

    Jobs write what they print to `.slurm` in the sweep's folder; it is shown as each ends.
    """

    def __init__(self, **options: Any) -> None:
        self._options = {name: value for name, value in options.items() if value is not None}
        self._config: DictConfig | None = None
        self._context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's: take the primary configuration. The jobs call `experiments.run` themselves."""
        self._config, self._context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; returns how each ended. Raises ConfigError where Slurm or submitit is not there."""
        assert self._config is not None
        setup_globals()
        sweep_dir = Path(str(self._config.hydra.sweep.dir)).absolute()
        configs = [
            self._composed(overrides, number, sweep_dir)
            for number, overrides in enumerate(job_overrides, start=initial_job_idx)
        ]
        jobs = _executor(sweep_dir / ".slurm", self._options).map_array(run_in_job, configs)
        print(
            f"submitted {len(jobs)} trials as Slurm's jobs {jobs[0].job_id} to {jobs[-1].job_id}", flush=True
        )
        try:
            statuses = [_wait(job) for job in jobs]
        except BaseException:  # Ctrl-C ends the sweep, and so its trials
            for job in jobs:
                job.cancel(check=False)
            raise
        return [
            JobReturn(cfg=config, status=JobStatus.COMPLETED, _return_value=status)
            for config, status in zip(configs, statuses, strict=True)
        ]

    def _composed(self, overrides: Sequence[str], number: int, sweep_dir: Path) -> DictConfig:
        assert self._context is not None
        assert self._config is not None
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
            config.hydra.sweep.dir = str(
                sweep_dir
            )  # its default names the time, which the job has another of
        return config


def _executor(folder: Path, options: dict[str, Any]) -> Any:
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ConfigError("hydra/launcher=slurm: there is no sbatch here; run it where jobs are submitted")
    try:
        import submitit
    except ImportError:
        raise ConfigError("hydra/launcher=slurm needs submitit: pip install 'dahl[slurm]'") from None
    executor = submitit.SlurmExecutor(folder=folder, python=sys.executable)
    try:
        executor.update_parameters(job_name="dahl", stderr_to_stdout=True, **options)
    except ValueError as error:
        raise ConfigError(f"hydra.launcher: {str(error).splitlines()[0]}") from error
    return executor


def run_in_job(config: DictConfig) -> int:
    """Run one composed trial, in the job; returns its exit status."""
    from experiments.run import run_and_tell

    setup_globals()

    HydraConfig.instance().set_config(config)
    trial = config.copy()
    with open_dict(trial):
        del trial["hydra"]
    try:
        return run_and_tell(trial)
    except SystemExit as stopped:  # submitit would leave no result
        return int(stopped.code) if isinstance(stopped.code, int) else 1


def _wait(job: Any) -> int:
    """Wait for a job and show what it printed; 1 where it left no result.

    submitit asks Slurm's accounting, which not every cluster keeps: here the queue tells that a job is gone.
    """
    gone_s: float | None = None
    while not job.paths.result_pickle.exists():
        if gone_s is None:
            gone_s = None if _is_queued(job.job_id) else time.monotonic()
        elif time.monotonic() > gone_s + GONE_S:
            _show(job)
            print(f"error: job {job.job_id} ended without a result: {job.paths.stdout}", file=sys.stderr)
            return 1
        time.sleep(POLL_S)
    _show(job)
    error = job.exception()
    if error is not None:
        print(f"error: job {job.job_id}: {error}", file=sys.stderr)
        return 1
    return int(job.results()[0])


def _show(job: Any) -> None:
    path = Path(job.paths.stdout)
    if path.exists():
        lines = path.read_text(errors="replace").splitlines()
        print("\n".join(line for line in lines if not line.startswith("submitit ")), flush=True)


def _is_queued(job_id: str) -> bool:
    asked = subprocess.run(
        ["squeue", "--noheader", "--jobs", job_id, "--format", "%T"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.returncode == 0 and asked.stdout.strip() not in ("", "COMPLETED", "FAILED", "CANCELLED")
