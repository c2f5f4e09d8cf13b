"""What trains, as the records see it: a running StarPU, or PyTorch's threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Engine(Protocol):
    """A clock, workers, and what is known of the tasks that they ran. `dahl.starpu.Runtime` is one."""

    @property
    def workers(self) -> Sequence[Any]:
        """What runs at once."""

    @property
    def codelets(self) -> Sequence[Any]:
        """The kinds of tasks, each with its `name`, in the order of the trace's numbers."""

    def now_s(self) -> float:
        """The clock of the tasks."""

    def take_trace(self) -> np.ndarray:
        """The tasks that ended since the last call."""

    def take_decisions(self) -> np.ndarray:
        """The scheduler's decisions since the last call."""

    def take_transfers(self) -> np.ndarray:
        """Bytes between memory nodes since the last call."""

    def pause(self) -> None:
        """Put the workers to sleep."""

    def resume(self) -> None:
        """Wake them up."""
