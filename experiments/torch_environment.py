"""What has to be so before PyTorch is imported."""

from __future__ import annotations

import importlib.util
import os


class TorchMissingError(Exception):
    """PyTorch is not installed; the message says how to get it."""


def prepare() -> None:
    """Set what PyTorch reads as it is imported. Raises TorchMissingError."""
    if importlib.util.find_spec("torch") is None:
        raise TorchMissingError(
            "framework=torch: PyTorch is not installed; `pip install torch` gets it, framework=starpu does without"
        )
    # Its compiler's helper processes would stay, and wake up, through the measured epochs.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
