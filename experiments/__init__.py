"""Experiments: trials and sweeps, and what they leave behind.

`from experiments import Run, load_runs` reads records as pandas frames (docs/records.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.runs import Run, load_runs

__all__ = ["Run", "load_runs"]


def __getattr__(name: str) -> Any:
    """Load what reads records when it is asked for: a trial's supervisor starts without pandas."""
    if name in __all__:
        from experiments import runs

        return getattr(runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
