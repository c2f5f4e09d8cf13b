"""`python -m energy.sampling_process FD PARENT`: samples for the process at the other end of a socket.

Started by `energy.process_sampler`, which sends sources that are not open yet. The process keeps them open, appends
to the power stream itself, puts live watts into shared memory, and answers each request for a reading.
It ends when it is told to or when its parent is gone, with all that it read in the stream.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from energy.live import LivePage
from energy.messages import PeerGoneError, receive, send
from energy.stream import PowerStream
from energy.thread_sampler import ThreadSampler

_PARENT_CHECK_S = 1.0


def main(arguments: list[str]) -> int:
    """Serve until the parent stops or is gone; returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A group is signalled as a whole: the run decides what becomes of it, and this process follows it.
        signal.signal(number, signal.SIG_IGN)
    peer = socket.socket(fileno=int(arguments[0]))
    try:
        _serve(peer, int(arguments[1]))
    except PeerGoneError:
        return 1
    except Exception as error:
        traceback.print_exc()
        send(peer, "failed", f"{type(error).__name__}: {error}")
        return 1
    return 0


def _serve(peer: socket.socket, parent: int) -> None:
    """Open, then start, then sample on demand; the requests come in this order."""
    _, setup = receive(peer)
    stream = None if setup["stream"] is None else PowerStream(Path(setup["stream"]))
    sampler = ThreadSampler(
        setup["sources"],
        setup["rate_hz"],
        stream,
        LivePage(setup["page"]),
        resumed=setup["resumed"],
        loop=setup["loop"],
    )
    try:
        sampler.open()
    except Exception as error:
        _refuse(peer, error)
        return
    send(peer, "opened", sampler.channels, sampler.qualities, sampler.loops)
    try:
        receive(peer)
        if stream is not None:
            stream.join()
        # What is made from here on does not refer to itself, and a collection would delay a reading.
        gc.collect()
        gc.freeze()
        gc.disable()
        take_precedence()
        sampler.start()
        _answer(peer, parent, sampler)
    finally:
        sampler.stop()
        if stream is not None:
            stream.close()
    send(peer, "stopped", sampler.trouble, sampler.report)


def take_precedence() -> None:
    """Come before workers that keep every core busy, where this user may (CAP_SYS_NICE, RLIMIT_RTPRIO)."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _refuse(peer: socket.socket, error: Exception) -> None:
    try:
        send(peer, "refused", error)
    except PeerGoneError:
        raise
    except Exception:  # an error that cannot be pickled goes as its text
        send(peer, "refused", RuntimeError(f"{type(error).__name__}: {error}"))


def _answer(peer: socket.socket, parent: int, sampler: ThreadSampler) -> None:
    """Answer requests until one says stop or the parent is gone."""
    request: Any = "sample"
    while request != "stop":
        send(peer, "snapshot", sampler.sample(), sampler.trouble)
        while not select.select([peer], [], [], _PARENT_CHECK_S)[0]:
            if os.getppid() != parent:  # a copy of its end of the socket may live on in another process
                return
        try:
            (request,) = receive(peer)
        except PeerGoneError:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
