"""Ctrl-C while the main thread waits inside StarPU: Python's handler would only run once the wait is over."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def cancel_on_interrupt(cancel: Callable[[], object]) -> Iterator[None]:
    """Call `cancel`, from another thread, as soon as a signal arrives; KeyboardInterrupt follows as usual.

    `cancel` must be safe to call while the main thread is inside a call to C that has released the GIL.
    Must be entered on the main thread.
    """
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)

    def wait() -> None:
        if os.read(read_fd, 1):
            cancel()

    old_wakeup_fd = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    thread = threading.Thread(target=wait, name="cancel-on-interrupt", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old_wakeup_fd)
        os.close(write_fd)  # the thread reads the end of the pipe
        thread.join()
        os.close(read_fd)
