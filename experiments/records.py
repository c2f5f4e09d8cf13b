"""The folder of a run: what it holds, and how it stays whole.

`<output>/<experiment>/<stamp>-<scheduler>-<model>-<short id>/` with

* `config.yaml`: the resolved configuration, with the name chosen in each group under `choices`;
* `environment.json`: commit, versions, machine, energy sources and why others are absent;
* `summary.json`: `status` is `running` until the trial has ended (see `experiments.summary`);
* `epochs`, `windows`, `breakdown`, `power`, `tasks`: tables (see `experiments.tables`);
* `trial.log`: stdout and stderr of the trial;
* `supervisor.lock`, while the trial runs: locked by its supervisor (see `experiments.run_lock`).

`summary.json` comes after the other two; a folder without one is no run.

Files are written whole: into a temporary file, flushed to the disk, renamed.
Only the tables grow while a trial runs, as streams; they become Parquet once it has ended, by its own hand
or, where it was killed, by its supervisor's.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

from experiments.events import plain

RECORD_VERSION = 1

CONFIG_NAME = "config.yaml"
ENVIRONMENT_NAME = "environment.json"
SUMMARY_NAME = "summary.json"
GRAPH_NAME = "graph.json"


class OutputFolderError(Exception):
    """The folder for the records cannot be made or written."""


def new_run_dir(output: Path, experiment: str, scheduler: str, model: str) -> Path:
    """Make and return the folder of a new run; `output` may be relative and need not exist.

    Raises OutputFolderError where it cannot be written.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = "-".join([stamp, _file_name(scheduler), _file_name(model), secrets.token_hex(3)])
    folder = experiment_dir(output, experiment) / name
    try:
        folder.mkdir(parents=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputFolderError(
            f"output={output}: {error.filename} cannot be written ({error.strerror}); choose another folder"
        ) from error
    return folder


def experiment_dir(output: Path, experiment: str) -> Path:
    """The folder of an experiment's runs, whether or not it is there."""
    return output.expanduser().resolve() / _file_name(experiment)


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+]+", "_", text).strip(".") or "_"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that at any moment either the old content or all of the new one is there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder last through a crash of the machine."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON object whole; numbers that are not finite become null."""
    write_whole(path, (json.dumps(plain(record), indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    record = json.loads(path.read_bytes())
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds no JSON object")
    return record


def write_config(run_dir: Path, config: dict[str, Any]) -> None:
    """Write the resolved configuration as YAML."""
    from omegaconf import OmegaConf

    write_whole(run_dir / CONFIG_NAME, OmegaConf.to_yaml(OmegaConf.create(config)).encode())


def read_config(run_dir: Path) -> dict[str, Any]:
    """Read the resolved configuration of a run."""
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(OmegaConf.load(run_dir / CONFIG_NAME))
    if not isinstance(config, dict):
        raise ValueError(f"{run_dir / CONFIG_NAME} holds no configuration")
    return {str(key): value for key, value in config.items()}


def remove_leftovers(run_dir: Path) -> None:
    """Remove temporary files of a trial that was killed while it wrote them."""
    for path in run_dir.glob(".*.tmp"):
        path.unlink(missing_ok=True)
