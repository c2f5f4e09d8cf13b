"""Alumet's agent as a child process that ends with its owner, and the CSV that it writes while it runs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, final

from energy.alumet_csv import AlumetError, Layout, read_layout
from energy.source import SourceUnavailableError

_ENDINGS = ((signal.SIGINT, 5.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 10.0))
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TAIL_BYTES = 4096
_RECENT_BYTES = 1 << 18
_WATCHER = 'read -r _; kill -s INT -- "-$1"; sleep 2; kill -s KILL -- "-$1"; rm -rf -- "$2"'
"""Waits until its input ends, which happens however the owner does."""


@final
class Agent:
    """An agent that writes what `plugins` read into a CSV of its own; it never outlives its owner.

    Its options are passed as overrides of the agent's own defaults, since the keys that a configuration must
    have, and may have, differ between versions.
    """

    def __init__(
        self, command: str, plugins: Sequence[str], poll_interval_s: float, flush_interval_s: float
    ) -> None:
        self._command = command
        self._plugins = tuple(plugins)
        self._intervals_s = {"poll_interval": poll_interval_s, "flush_interval": flush_interval_s}
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> Path:
        """The CSV; it is there once the agent has begun to write."""
        assert self._folder is not None
        return self._folder / "alumet.csv"

    def start(self) -> None:
        """Start the agent. Raises `SourceUnavailableError` where there is none."""
        program = shutil.which(self._command)
        if program is None:
            raise SourceUnavailableError(
                "alumet",
                f"there is no program {self._command!r}",
                "install Alumet's agent, 0.9.0 or later (https://alumet.dev, or `nix build .#alumet-agent`), "
                "or name it by energy.settings.alumet.command",
            )
        self._folder = Path(tempfile.mkdtemp(prefix="alumet-"))
        try:
            with (self._folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [program, *self._arguments()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # an interrupt from the terminal is its owner's to pass on
                )
            self._watcher = subprocess.Popen(
                ["sh", "-c", _WATCHER, "sh", str(self._process.pid), str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self.stop()
            raise SourceUnavailableError(
                "alumet", f"{program} cannot be started: {error.strerror}", "try it by hand"
            ) from error

    def _arguments(self) -> list[str]:
        assert self._folder is not None
        overrides = [
            f"plugins.{plugin}.{key}='{round(seconds * 1e6)}us'"
            for plugin in self._plugins
            for key, seconds in self._intervals_s.items()
        ]
        return [
            *("--config", str(self._folder / "agent.toml")),
            *("--plugins", ",".join([*self._plugins, "csv"])),
            *("--output-file", str(self.output)),
            *(part for override in overrides for part in ("--config-override", override)),
            "run",
        ]

    def ended(self) -> str | None:
        """How the agent ended, with its last words; None while it runs."""
        if self._process is None or self._process.poll() is None:
            return None
        code = self._process.returncode
        how = f"signal {-code}" if code < 0 else f"status {code}"
        self._dismiss_watcher()
        return f"{self._command} ended with {how}: {self.last_words()}"

    def last_words(self) -> str:
        """The last line that the agent printed."""
        assert self._folder is not None
        with contextlib.suppress(OSError), (self._folder / "log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = _COLOUR.sub("", log.read().decode("utf-8", errors="replace")).split("\n")
            words = [line.strip() for line in lines if line.strip()]
            if words:
                return words[-1]
        return "it said nothing"

    def stop(self) -> None:
        """End the agent and drop its files; harmless when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        self._dismiss_watcher()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _dismiss_watcher(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.kill()
            watcher.wait()
            assert watcher.stdin is not None
            watcher.stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask ever less politely, the agent and what it may have started."""
    for number, patience_s in _ENDINGS:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@final
class GrowingCsv:
    """The lines of a CSV that another process is writing, each once, as soon as it has its end.

    Of a file that is long already, `recent` leaves out all but the last lines.
    """

    def __init__(self, path: Path, *, recent: bool = False) -> None:
        self.path = path
        self.layout: Layout | None = None
        self._recent = recent
        self._file: IO[bytes] | None = None
        self._rest = b""

    def lines(self) -> list[str]:
        """The lines since the last call, without the header; none where there is no file yet.

        Raises `AlumetError` where the file was cut short or replaced, and then begins with the new one.
        """
        if self._file is None and not self._open():
            return []
        assert self._file is not None
        if self._is_another():
            self.close()
            self._recent = False
            raise AlumetError(f"{self.path} was cut short or replaced")
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        if self.layout is None and whole:
            self.layout = read_layout(self.path, whole.pop(0))
        return [line.decode("utf-8", errors="replace").rstrip("\r") for line in whole]

    def _open(self) -> bool:
        try:
            self._file = self.path.open("rb")
            if self._recent:
                self._skip_old(self._file)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise AlumetError(f"{self.path} cannot be read: {error.strerror}") from error
        return True

    def _skip_old(self, file: IO[bytes]) -> None:
        header = file.readline(_RECENT_BYTES)
        if not header.endswith(b"\n"):
            file.seek(0)
            return
        self.layout = read_layout(self.path, header[:-1])
        start = os.fstat(file.fileno()).st_size - _RECENT_BYTES
        if start > len(header):
            file.seek(start)
            file.readline()  # the rest of a line

    def _is_another(self) -> bool:
        assert self._file is not None
        mine = os.fstat(self._file.fileno())
        try:
            named = self.path.stat()
        except OSError:
            return True
        return named.st_ino != mine.st_ino or named.st_dev != mine.st_dev or mine.st_size < self._file.tell()

    def close(self) -> None:
        """Let go of the file; harmless when it is closed."""
        file, self._file = self._file, None
        self.layout, self._rest = None, b""
        if file is not None:
            file.close()
