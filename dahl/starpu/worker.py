"""StarPU's workers as Python sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final


@final
@dataclass(frozen=True)
class Worker:
    """One worker: a CPU core or a GPU that runs tasks.

    ``device`` counts within the arch; workers of one ``worker_class`` are alike.
    """

    id: int
    name: str
    arch: Literal["cpu", "cuda"]
    device: int
    memory_node: int
    worker_class: str
