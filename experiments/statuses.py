"""The exit statuses of the trials of one command: Hydra hands back none."""

from __future__ import annotations

_statuses: list[int] = []


def add(status: int) -> None:
    """Note a trial's: 0 finished, 1 failed, 2 refused before it started."""
    _statuses.append(status)


def worst() -> int:
    """The command's own."""
    return max(_statuses, default=0)
