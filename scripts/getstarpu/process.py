"""Child processes with a log, which all end when the command does."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path


class GetStarpuError(Exception):
    """A failure that one line explains; `log` is the file that holds the rest."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


class Processes:
    """Runs commands, from several threads if need be, and can stop all of them at once.

    Each command leads a process group of its own, so that `make` ends together with its compilers.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self,
        arguments: Sequence[str | Path],
        log: Path,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Run a command, append what it prints to `log`, and return its exit status.

        Raises:
            GetStarpuError: the program is not installed, or the commands have been stopped.
        """
        with log.open("ab") as out:
            out.write(f"$ {' '.join(map(str, arguments))}\n".encode())
            out.flush()
            process = self._start(arguments, out.fileno(), log, cwd, env)
        try:
            status = process.wait()
        finally:
            with self._lock:
                self._running.discard(process)
        if self._stopped:
            raise GetStarpuError("stopped", log)
        return status

    def _start(
        self,
        arguments: Sequence[str | Path],
        out: int,
        log: Path,
        cwd: Path | None,
        env: Mapping[str, str] | None,
    ) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise GetStarpuError("stopped", log)
            try:
                process = subprocess.Popen(
                    [str(argument) for argument in arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    # One language, since what the tools print is read and logs are compared.
                    env={**os.environ, "LC_ALL": "C", **(env or {})},
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                if error.filename != str(arguments[0]):
                    raise
                raise GetStarpuError(
                    f"the program {arguments[0]} is not installed; `make setup` installs what is needed", log
                ) from error
            self._running.add(process)
            return process

    def stop(self, grace_s: float = 5.0) -> None:
        """End every running command and refuse new ones."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in running:
                try:
                    os.killpg(process.pid, number)
                except ProcessLookupError:
                    continue
            for process in running:
                try:
                    process.wait(grace_s)
                except subprocess.TimeoutExpired:
                    continue
