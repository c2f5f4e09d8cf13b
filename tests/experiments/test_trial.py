from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from hydra.errors import InstantiationException

from experiments.interrupts import cancel_on_interrupt
from experiments.trial import one_line


def raised(error: Exception, cause: BaseException | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


def test_an_error_of_python_itself_is_named_by_its_type() -> None:
    assert one_line(raised(KeyError("gamma"))) == "KeyError: 'gamma'"


def test_a_refused_value_is_told_in_its_own_words() -> None:
    assert one_line(raised(ValueError("max_slowdown must be at least 1, got 0"))) == (
        "max_slowdown must be at least 1, got 0"
    )


def test_hydras_words_around_an_error_are_left_out() -> None:
    wrapped = raised(
        InstantiationException("Error in call to target 'x'\nfull_key: y"), ValueError("root: no folder")
    )
    assert one_line(wrapped) == "root: no folder"


def test_several_lines_become_one() -> None:
    assert one_line(raised(ValueError("one\n   two"))) == "one two"


def test_ctrl_c_cancels_while_the_main_thread_is_inside_a_call() -> None:
    cancelled = threading.Event()
    lock = threading.Lock()
    lock.acquire()

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    # A handler that does nothing: the wait goes on, as a wait in C does.
    old = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with cancel_on_interrupt(lambda: (cancelled.set(), lock.release())):
            threading.Timer(0.1, interrupt).start()
            assert lock.acquire(timeout=20), "cancel was not called"
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert cancelled.is_set()


def test_nothing_is_cancelled_without_a_signal_and_the_thread_ends() -> None:
    before = threading.active_count()
    with cancel_on_interrupt(lambda: pytest.fail("cancelled")):
        time.sleep(0.05)
    assert threading.active_count() == before
