"""One measured run at a time on a machine: two would count each other's joules.

The lock is a file that every user can open, `dahl-measuring.lock` in /tmp, or the one that DAHL_LOCK names; the kernel
drops it with the process that holds it, however that ends. Containers with a /tmp of their own do not see each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEFAULT_PATH = Path("/tmp") / "dahl-measuring.lock"
"""The same for every user, which the folder of $TMPDIR would not be: two of them must meet at one file."""


class MachineBusyError(Exception):
    """Another run measures on this machine."""


def lock_path() -> Path:
    """The file of this machine's lock."""
    return Path(os.environ.get("DAHL_LOCK") or DEFAULT_PATH)


@contextmanager
def measuring(folder: Path, *, allow_concurrent: bool = False) -> Iterator[None]:
    """Hold the machine's lock; `folder` is where the records go, told to whoever is refused.

    A process that holds it already goes on holding it. With `allow_concurrent` another holder is no hindrance.
    Raises MachineBusyError, with the other's process and folder; OSError where the lock cannot be opened.
    """
    fd = _open(lock_path())
    try:
        mine = _try(fd)
        holder = {} if mine else _holder(fd)
        if not mine and holder.get("pid") != os.getpid() and not allow_concurrent:
            raise MachineBusyError(_words(holder))
        if mine or holder.get("pid") == os.getpid():
            _tell(fd, {"pid": os.getpid(), "folder": str(folder)})
        try:
            yield
        finally:
            if mine:
                os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tell(fd: int, holder: dict[str, Any]) -> None:
    data = json.dumps(holder).encode()
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))


def _holder(fd: int) -> dict[str, Any]:
    """What the holder said of itself; nothing in the instant before it did."""
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _words(holder: dict[str, Any]) -> str:
    who = f"process {holder.get('pid', '?')} (records: {holder.get('folder', '?')})"
    return (
        f"{who} measures on this machine, and two at once would count each other's joules: "
        "wait for it, or allow_concurrent=true"
    )


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW  # a link that somebody left there would have its target emptied
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        os.fchmod(fd, 0o666)  # whatever the umask: other users take the same lock
        return fd
    return os.open(path, flags)
