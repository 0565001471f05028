"""The socket of a client that was handed off: it never blocks, and where threads are real its ``send`` keeps the GIL.

An ordinary ``send`` releases the GIL, the interpreter's lock. Beside a thread that computes it then waits 5 ms, the
interpreter's switch interval, to have it back, for each client: the convoy effect, CPython's issue 7946. A ``send``
that never blocks need not release it.
"""

from __future__ import annotations

import _socket
import socket
from functools import cache
from typing import Any

from ..runtime.gevent_loop import is_green


def take_socket(client: Any) -> _socket.socket:
    """Take the descriptor of a server's socket, which is closed from then on, and return a socket of our own for it."""
    taken = _class()(client.family, client.type, client.proto, client.detach())
    taken.setblocking(False)
    return taken


def open_socket(descriptor: int) -> _socket.socket:
    """Return a socket of our own for a descriptor that another process has given.

    :raises OSError: where it is none of a socket.
    """
    opened = _class()(fileno=descriptor)
    opened.setblocking(False)
    return opened


def _class() -> type[_socket.socket]:
    return _socket.socket if is_green() else _gil_keeping_class()


@cache
def _gil_keeping_class() -> type[_socket.socket]:
    """Return a class of sockets whose ``send`` keeps the GIL; the ordinary one on a system whose C library has none."""
    import ctypes

    try:
        c_send = ctypes.PyDLL(None).send
    except (AttributeError, OSError, TypeError):  # Windows
        return _socket.socket
    # Without argtypes, whose conversions take 0.3 of 0.7 microseconds: the system takes these arguments as they are.
    c_send.restype = ctypes.c_ssize_t
    flags = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)

    class GilKeepingSocket(_socket.socket):
        __slots__ = ()

        def send(self, data: Any, /) -> int:  # type: ignore[override]
            sent: int = c_send(self.fileno(), data, len(data), flags) if type(data) is bytes else -1
            return sent if sent >= 0 else super().send(data)  # which raises the error, if there still is one

    return GilKeepingSocket
