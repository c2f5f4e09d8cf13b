from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.validation import CHECKOUT

STAND_INS = Path(__file__).with_name("stand_ins.py")


def stand_in(way: str, run_dir: Path) -> tuple[str, ...]:
    """The command of a stand-in for a trial."""
    return (sys.executable, str(STAND_INS), way, str(run_dir))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which a child finds this checkout's packages."""
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return dict(os.environ)


def wait_for(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    """Wait until the condition holds."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.01)


def when(condition: Callable[[], Any], action: Callable[[], object]) -> threading.Thread:
    """Do something from another thread as soon as the condition holds."""

    def run() -> None:
        wait_for(condition)
        action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def configuration(**changes: Any) -> dict[str, Any]:
    """A configuration that can run, as Hydra would compose it."""
    config: dict[str, Any] = {
        "framework": {"name": "starpu"},
        "scheduler": {"_target_": "schedulers.StarPUScheduler", "name": "eager"},
        "workload": {"_target_": None},
        "estimates": {"bias": {}, "noise": 0.0, "seed": 0},
        "model": {"_target_": "dahl.models.basic_cnn"},
        "dataset": {"_target_": "dahl.datasets.Synthetic"},
        "energy": {"sources": "auto"},
        "platform": {"name": "host", "simulated": False},
        "epochs": 1,
        "batch_size": 64,
        "tile": 16,
        "fuse": "auto",
        "workers": None,
        "seed": 0,
        "learning_rate": 0.02,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "label": None,
        "repeat": 1,
        "repeats": 1,
        "order_seed": 0,
        "jobs": None,
        "resume": False,
        "allow_concurrent": False,
        "timeout_s": None,
        "guard": "label",
        "max_foreign_cores": 0.1,
        "evaluate": True,
        "bound": True,
        "trace": True,
        "output": "runs",
        "name": None,
    }
    return config | changes


CHOICES = {
    "framework": "starpu",
    "scheduler": "eager",
    "workload": "cnn",
    "model": "basic_cnn",
    "dataset": "synthetic",
    "energy": "auto",
    "platform": "host",
    "experiment": None,
}
