"""A run's folder is locked while its supervisor lives, so that others can tell a trial that goes on from a cut one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import final

LOCK_NAME = "supervisor.lock"


@final
class RunLock:
    """Holds the lock of a run's folder; the kernel drops it with the process, however that ends."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / LOCK_NAME
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Remove the lock: the run has ended, and its summary says how."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)

    @staticmethod
    def remove(run_dir: Path) -> None:
        """Remove what a supervisor that was killed has left."""
        (run_dir / LOCK_NAME).unlink(missing_ok=True)

    @staticmethod
    def is_held(run_dir: Path) -> bool:
        """Whether the supervisor of a run lives."""
        try:
            fd = os.open(run_dir / LOCK_NAME, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False
