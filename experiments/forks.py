"""Several pieces of work at once, each in a fork of this process: supervising takes a main thread."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import IO, Any

from experiments.lifeline import die_with_parent
from experiments.supervisor import stopping_signals

Work = Callable[[], int]


def run_forked(work: Sequence[Work], at_once: int) -> list[int]:
    """Run the pieces, `at_once` at a time; returns their exit statuses, 128 + signal for one that was killed.

    What a piece prints is shown whole when it has ended. A stopping signal is passed on to those that run, no other
    is started, and SystemExit (128 + signal) raised once they have ended.
    Must be called on the main thread of a process without others.
    """
    statuses = [0] * len(work)
    waiting = list(range(len(work)))
    running: dict[int, tuple[int, int, IO[bytes]]] = {}
    with stopping_signals() as (wakeup, received), selectors.DefaultSelector() as selector:
        selector.register(wakeup, selectors.EVENT_READ)
        handled = 0
        while running or (waiting and not received):
            while waiting and not received and len(running) < at_once:
                number = waiting.pop(0)
                said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - _reap closes it, when the fork has ended
                pid = _fork(work[number], said)
                process_fd = os.pidfd_open(pid)
                running[process_fd] = (number, pid, said)
                selector.register(process_fd, selectors.EVENT_READ)
            for key, _ in selector.select():
                if key.fileobj is wakeup:
                    wakeup.read(4096)
                elif isinstance(key.fileobj, int):
                    selector.unregister(key.fileobj)
                    number, pid, said = running.pop(key.fileobj)
                    statuses[number] = _reap(pid, key.fileobj, said)
            while handled < len(received):
                for _, pid, _ in running.values():
                    os.kill(pid, received[handled])
                handled += 1
    if received:
        raise SystemExit(128 + received[0])
    return statuses


def _fork(work: Work, said: IO[bytes]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent(parent)
        os.setpgid(0, 0)  # Ctrl-C on the terminal reaches the parent alone, which passes it on
        _default_signals()
        os.dup2(said.fileno(), 1)
        status = int(work())
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _reap(pid: int, process_fd: int, said: IO[Any]) -> int:
    _, waited = os.waitpid(pid, 0)
    os.close(process_fd)
    with said:
        said.seek(0)
        shutil.copyfileobj(said, sys.stdout.buffer)
    sys.stdout.buffer.flush()
    status = os.waitstatus_to_exitcode(waited)
    return status if status >= 0 else 128 - status
