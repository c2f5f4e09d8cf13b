"""A sampler in a process of its own, which neither Python's lock nor a crash of the run reaches."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

from energy.counters import Flag, Mark
from energy.live import LivePage
from energy.messages import PeerGoneError, receive, send
from energy.sampler import LivePower, RateHz, Sampler, SamplerError, SamplingReport, Snapshot, read_live
from energy.source import Channel, Quality, Source
from energy.stream import PowerStream
from energy.ticks import Loop

_OPEN_LIMIT_S = 60.0
_END_LIMIT_S = 10.0
_MOST_DEATHS = 3


@final
class ProcessSampler(Sampler):
    """Hands the sources, which must be possible to pickle, to a process that opens and samples them.

    Where that process dies or does not answer within `answer_limit_s`, the windows that are open then have no joules,
    a new process takes over for those to come, and `trouble` tells of it. After the third death nothing is read any
    more.
    `loop`: what reads the sources; None takes for each the best that there is.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        rate_hz: RateHz,
        stream: PowerStream | None,
        page: LivePage,
        *,
        answer_limit_s: float = 10.0,
        loop: Loop | None = None,
    ) -> None:
        self._sources = tuple(sources)
        self._rate_hz = rate_hz
        self._stream = stream
        self._page = page
        self._answer_limit_s = answer_limit_s
        self._loop = loop
        self._loops: dict[str, Loop] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: socket.socket | None = None
        self._channels: dict[str, Channel] = {}
        self._qualities: dict[str, Quality] = {}
        self._marks: dict[str, Mark] = {}
        self._base: dict[str, Mark] = {}
        """Where the records of earlier processes broke off: the breaks and flags that a new process does not know."""
        self._deaths: list[str] = []
        self._trouble: str | None = None
        self.report: SamplingReport | None = None

    @property
    def channels(self) -> dict[str, Channel]:
        return self._channels

    @property
    def qualities(self) -> dict[str, Quality]:
        return self._qualities

    @property
    def loops(self) -> dict[str, Loop]:
        return self._loops

    @property
    def trouble(self) -> str | None:
        return "; ".join(filter(None, [*self._deaths, self._trouble])) or None

    @property
    def pid(self) -> int | None:
        """The process that samples now; None where there is none."""
        return None if self._process is None else self._process.pid

    def open(self) -> None:
        try:
            self._launch(resumed=False)
        except BaseException:
            self._discard()
            raise

    def _launch(self, *, resumed: bool) -> None:
        """Start a process and let it open the sources. Raises what they raise, or `SamplerError`."""
        own, other = socket.socketpair()
        with other:
            self._peer = own
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                "OPENBLAS_NUM_THREADS": "1",  # the threads that NumPy starts have nothing to do there
            }
            self._process = subprocess.Popen(
                [sys.executable, "-m", "energy.sampling_process", str(other.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=(other.fileno(), self._page.descriptor),
            )
        setup = {
            "sources": self._sources,
            "rate_hz": self._rate_hz,
            "page": self._page.descriptor,
            "resumed": resumed,
            "loop": self._loop,
            "stream": None if self._stream is None else str(self._stream.path.absolute()),
        }
        try:
            kind, *told = self._ask("open", setup, limit_s=_OPEN_LIMIT_S)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise SamplerError(f"a source cannot be sent to the sampler's process: {error}") from error
        if kind == "refused":
            raise told[0]
        self._channels, self._qualities, self._loops = told

    def start(self) -> None:
        self._begin()

    def _begin(self) -> Snapshot:
        _, snapshot, self._trouble = self._ask("start")
        return self._took(snapshot)

    def sample(self) -> Snapshot:
        with self._lock:
            try:
                if self._process is not None:
                    _, snapshot, self._trouble = self._ask("sample")
                    return self._took(snapshot)
            except SamplerError as error:
                return self._recover(error)
            return Snapshot(time.monotonic_ns(), dict(self._marks))

    def live(self) -> dict[str, LivePower]:
        return read_live(self._page, self._channels)

    def stop(self) -> None:
        with self._lock:
            if self._process is not None and self._marks:
                try:
                    _, self._trouble, self.report = self._ask("stop")
                    self._process.wait(_END_LIMIT_S)
                except SamplerError as error:
                    self._deaths.append(str(error))
                except subprocess.TimeoutExpired:
                    self._deaths.append(f"the sampler did not end within {_END_LIMIT_S:g} s")
            self._discard()

    def _ask(self, *request: Any, limit_s: float | None = None) -> tuple[Any, ...]:
        """Send a request and wait for the answer; `SamplerError` where none comes."""
        assert self._peer is not None
        limit_s = self._answer_limit_s if limit_s is None else limit_s
        self._peer.settimeout(limit_s)
        try:
            with contextlib.suppress(PeerGoneError):  # its last words may still wait to be received
                send(self._peer, *request)
            answer = receive(self._peer)
        except TimeoutError as error:
            raise SamplerError(f"the sampler did not answer within {limit_s:g} s") from error
        except PeerGoneError as error:
            raise SamplerError(f"the sampler has died ({self._how_it_ended()})") from error
        if answer[0] == "failed":
            raise SamplerError(f"the sampler has died ({answer[1]})")
        return answer

    def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            status = self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        return f"killed by signal {-status}" if status < 0 else f"exit status {status}"

    def _took(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot of this process as one of the whole record, with the breaks from before it."""
        for name, mark in snapshot.marks.items():
            base = self._base.get(name)
            if base is not None:
                mark = replace(mark, breaks=mark.breaks + base.breaks, flags=mark.flags | base.flags)
            self._marks[name] = mark
        return Snapshot(snapshot.t_ns, dict(self._marks))

    def _recover(self, error: SamplerError) -> Snapshot:
        """Break every record where it stands, and let a new process go on from there."""
        self._deaths.append(str(error))
        self._discard()
        now_ns = time.monotonic_ns()
        for name, mark in self._marks.items():
            broken = replace(
                mark, t_ns=now_ns, breaks=mark.breaks + 1, valid=False, flags=mark.flags | Flag.GAP
            )
            self._marks[name] = self._base[name] = broken
        if len(self._deaths) < _MOST_DEATHS:
            try:
                before = self._channels
                self._launch(resumed=True)
                if self._channels != before:
                    self._channels = before
                    raise SamplerError("other channels are there than before")
                return self._begin()
            except Exception as again:
                self._deaths.append(f"no other could take its place ({again})")
                self._discard()
        self._deaths.append("nothing is read since")
        return Snapshot(now_ns, dict(self._marks))

    def _discard(self) -> None:
        """Leave no process behind, and no watts that nobody reads."""
        peer, self._peer = self._peer, None
        process, self._process = self._process, None
        if peer is not None:
            peer.close()
        if process is not None:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_LIMIT_S)
            self._page.forget()
