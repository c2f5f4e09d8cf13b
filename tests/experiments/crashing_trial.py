"""`crashing_trial.py RUN_DIR ...`: a trial that dies of its seed: 3 in a kernel, 7 of its loss, 11 by kill -9."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray

from dahl.ops.relu import RELU, RELU_IN_PLACE
from dahl.starpu.kernel import pointer_to
from dahl.training import Trainer
from experiments import records, trial

to_float32 = pointer_to("float32")


def write_to_nowhere(x: np.ndarray, y: np.ndarray) -> None:
    """A kernel with a wild pointer."""
    carray(to_float32(64), (1,))[0] = np.float32(1.0)


def write_to_nowhere_in_place(y: np.ndarray) -> None:
    """The same, for one operand."""
    carray(to_float32(64), (1,))[0] = np.float32(1.0)


def segfault_in_a_kernel() -> None:
    for operations, kernel in ((RELU, write_to_nowhere), (RELU_IN_PLACE, write_to_nowhere_in_place)):
        for operation in operations.values():
            object.__setattr__(operation.kernel, "function", kernel)


def lose_the_loss() -> None:
    """Steps of such a length that the weights overflow."""
    read = records.read_config

    def wild(run_dir: Path) -> dict[str, Any]:
        return read(run_dir) | {"learning_rate": 1e30}

    records.read_config = wild


def die_in_the_second_epoch() -> None:
    run_epoch = Trainer.run_epoch

    def deadly(self: Trainer, epoch: int, *arguments: Any, **options: Any) -> Any:
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return run_epoch(self, epoch, *arguments, **options)

    Trainer.run_epoch = deadly


DEATHS = {3: segfault_in_a_kernel, 7: lose_the_loss, 11: die_in_the_second_epoch}

if __name__ == "__main__":
    DEATHS.get(records.read_config(Path(sys.argv[1]))["seed"], lambda: None)()
    sys.exit(trial.main())
