"""Messages between a run and its sampler's process: pickled objects, each after its length."""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("<I")


class PeerGoneError(RuntimeError):
    """The process at the other end is gone."""


def send(peer: socket.socket, *message: Any) -> None:
    """Send one message. Raises `PeerGoneError`; what pickle raises for what cannot be sent."""
    data = pickle.dumps(message)
    try:
        peer.sendall(_LENGTH.pack(len(data)) + data)
    except OSError as error:
        raise PeerGoneError(str(error)) from error


def receive(peer: socket.socket) -> tuple[Any, ...]:
    """Wait for one message. Raises `PeerGoneError`, or `TimeoutError` after the socket's timeout."""
    (length,) = _LENGTH.unpack(_exactly(peer, _LENGTH.size))
    message: tuple[Any, ...] = pickle.loads(_exactly(peer, length))
    return message


def _exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        try:
            more = peer.recv(count - len(data))
        except TimeoutError:
            raise
        except OSError as error:
            raise PeerGoneError(str(error)) from error
        if not more:
            raise PeerGoneError("the connection is closed")
        data += more
    return data
