"""Runs a trial in a process of its own and says how it ended, whatever it does."""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.events import Event, EventReader

Status = Literal["finished", "failed", "interrupted"]

LOG_NAME = "trial.log"
_STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    status: Status
    error: str | None
    """One line; None where the trial finished."""
    stopped_by: int | None
    """The signal that asked this process to stop, if one did: a sweep ends here too."""
    result: Event | None
    """The `finished` event of the trial, where it sent one."""
    explained: bool = False
    """Whether `error` is the trial's own account; otherwise only its log can tell more."""


@dataclass
class _Watch:
    """What is known of a running trial."""

    on_event: Callable[[Event], None]
    log: io.FileIO
    grace_s: float
    timeout_s: float | None = None
    timed_out: bool = False
    failed: str | None = None
    finished: Event | None = None
    deadline_s: float | None = None
    escalations: list[str] = field(default_factory=list)

    def take(self, event: Event) -> None:
        if event["event"] == "failed":
            self.failed = str(event.get("message", "no message"))
        elif event["event"] == "finished":
            self.finished = event
        elif event["event"] == "unreadable":
            self.log.write(f"supervisor: unreadable event: {event['line']}\n".encode())
            return
        self.on_event(event)


def supervise(
    command: Sequence[str],
    run_dir: Path,
    on_event: Callable[[Event], None],
    *,
    environment: Mapping[str, str],
    grace_s: float = 10.0,
    timeout_s: float | None = None,
) -> Outcome:
    """Run `command` plus `--events FD --parent PID` until it and what it started are gone.

    stdout and stderr go to `trial.log` in `run_dir`. The trial gets a session of its own: Ctrl-C reaches only
    this process, which passes it on as one SIGINT, then SIGTERM after `grace_s`, then SIGKILL; a second one
    kills at once. A trial that takes longer than `timeout_s` is ended in the same way, and has failed.
    Must be called on the main thread, since it takes over SIGINT, SIGTERM and SIGHUP.
    """
    read_fd, write_fd = os.pipe()
    with (
        io.FileIO(read_fd, "rb") as pipe,
        io.FileIO(run_dir / LOG_NAME, "ab") as log,
        stopping_signals() as (wakeup, received),
    ):
        process = _start(command, write_fd, log, environment)
        watch = _Watch(on_event, log, grace_s, timeout_s)
        if timeout_s is not None:
            watch.deadline_s = time.monotonic() + timeout_s
        try:
            _follow(process, pipe, wakeup, received, watch)
        finally:
            _kill_group(process, signal.SIGKILL)  # before the leader is reaped: its id is still ours
            process.wait()
        return _outcome(process.returncode, watch, received)


def _start(
    command: Sequence[str], events_fd: int, log: io.FileIO, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start the trial in a session of its own; `events_fd` is its alone from then on."""
    try:
        return subprocess.Popen(
            [*command, "--events", str(events_fd), "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment),
            pass_fds=(events_fd,),
            start_new_session=True,
        )
    finally:
        os.close(events_fd)


def _follow(
    process: subprocess.Popen[bytes], pipe: io.FileIO, wakeup: io.FileIO, received: list[int], watch: _Watch
) -> None:
    """Pass events on and signals down until the process has ended and its pipe is empty."""
    reader = EventReader()
    os.set_blocking(pipe.fileno(), False)
    process_fd = os.pidfd_open(process.pid)
    handled = 0
    with selectors.DefaultSelector() as selector:
        for source in (pipe, wakeup, process_fd):
            selector.register(source, selectors.EVENT_READ)
        try:
            while True:
                wait_s = None if watch.deadline_s is None else max(0.0, watch.deadline_s - time.monotonic())
                ready = {key.fileobj for key, _ in selector.select(wait_s)}
                if pipe in ready and not _drain(pipe, reader, watch):
                    selector.unregister(pipe)
                if wakeup in ready:
                    wakeup.read(4096)
                while handled < len(received):
                    handled += 1
                    _stop(process, watch, at_once=handled > 1)
                if watch.deadline_s is not None and time.monotonic() >= watch.deadline_s:
                    _escalate(process, watch, asked=handled > 0)
                if process_fd in ready:
                    _drain(pipe, reader, watch)
                    return
        finally:
            os.close(process_fd)


def _drain(pipe: io.FileIO, reader: EventReader, watch: _Watch) -> bool:
    """Take all that the pipe holds now; False once its other end is closed."""
    while True:
        data = pipe.read(65536)
        if data is None:  # nothing more for the moment
            return True
        if not data:
            return False
        for event in reader.feed(data):
            watch.take(event)


def _stop(process: subprocess.Popen[bytes], watch: _Watch, *, at_once: bool) -> None:
    if at_once:
        watch.escalations.append("killed at once")
        _kill_group(process, signal.SIGKILL)
        watch.deadline_s = None
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)
        watch.deadline_s = time.monotonic() + watch.grace_s


def _escalate(process: subprocess.Popen[bytes], watch: _Watch, *, asked: bool) -> None:
    """SIGINT when its time is up, SIGTERM when the grace period is over, SIGKILL two seconds later."""
    if not asked and not watch.timed_out:
        watch.timed_out = True
        _stop(process, watch, at_once=False)
    elif not watch.escalations:
        watch.escalations.append(f"did not stop within {watch.grace_s:g} s")
        _kill_group(process, signal.SIGTERM)
        watch.deadline_s = time.monotonic() + min(2.0, watch.grace_s)
    else:
        watch.escalations.append("killed")
        _kill_group(process, signal.SIGKILL)
        watch.deadline_s = None


def _kill_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@contextlib.contextmanager
def stopping_signals() -> Iterator[tuple[io.FileIO, list[int]]]:
    """Collect SIGINT, SIGTERM and SIGHUP in a list and wake a selector by a pipe, in place of KeyboardInterrupt.

    Must be entered on the main thread.
    """
    received: list[int] = []
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    os.set_blocking(write_fd, False)
    with io.FileIO(read_fd, "rb") as wakeup, io.FileIO(write_fd, "wb"):
        old_wakeup_fd = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        old_handlers = {
            number: signal.signal(number, lambda caught, _frame: received.append(caught))
            for number in _STOPPING_SIGNALS
        }
        try:
            yield wakeup, received
        finally:
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_wakeup_fd)


def _outcome(returncode: int, watch: _Watch, received: list[int]) -> Outcome:
    stopped_by = received[0] if received else None
    if watch.finished is not None and returncode == 0:
        return Outcome("finished", None, stopped_by, watch.finished)
    if stopped_by is not None:
        error = "; ".join([f"interrupted by {signal.Signals(stopped_by).name}", *watch.escalations])
        return Outcome("interrupted", error, stopped_by, watch.finished)
    if watch.timed_out:
        error = "; ".join([f"took longer than timeout_s={watch.timeout_s:g}", *watch.escalations])
        return Outcome("failed", error, None, watch.finished)
    explained = watch.failed is not None
    return Outcome("failed", _cause(returncode, watch), None, watch.finished, explained)


def _cause(returncode: int, watch: _Watch) -> str:
    if watch.failed is not None:
        return watch.failed
    how = f"killed by {signal_name(-returncode)}" if returncode < 0 else f"exit status {returncode}"
    if -returncode == signal.SIGKILL:
        how += " (out of memory, or a kill from outside)"
    if watch.finished is not None:
        return f"{how} after the last epoch, while it was shutting down"
    if returncode == 0:
        return f"{how}, but without a result: something in the trial ended the process early"
    return how


def signal_name(number: int) -> str:
    """A signal's name, such as SIGSEGV."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def log_tail(run_dir: Path, lines: int = 12) -> list[str]:
    """The last lines of a run's log; none where there is no log yet."""
    path = run_dir / LOG_NAME
    if not path.exists():
        return []
    with open(path, "rb") as log:
        log.seek(max(0, path.stat().st_size - 64 * 1024))
        return log.read().decode(errors="replace").splitlines()[-lines:]
