"""Thousands of clients on one thread: they connect all at once, read, and disconnect all at once.

What they get is kept as bytes and decoded on demand: while a crowd connects, there is no time for it.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from flask_sse_emitters import Event
from flask_sse_emitters.testing import decode
from tests.faults.chunked_body import Body
from tests.support.waiting import PATIENCE

_RESET = struct.pack("ii", 1, 0)

#: One address has too few ports for all, as those of closed connections stay in use for a while.
_ADDRESSES = 8

_BIND_ADDRESS_NO_PORT = 24  # Linux: the port is chosen at connect, and need not differ between destinations

#: Clients that connect in one go before others are read.
_STRIDE = 50


@dataclass(slots=True, eq=False)
class Visitor:
    """A client. Times are those of ``time.monotonic()``."""

    address: str
    request: bytes
    socket: socket.socket = field(init=False)
    received: bytearray = field(default_factory=bytearray)
    began: float = 0.0
    answered: float = 0.0  #: when the first byte came

    def events(self) -> list[Event]:
        """Return its complete events so far."""
        return decode(Body().take(bytes(self.received)))

    def leave(self, how: str) -> None:
        if how == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.close()


class Crowd:
    """Clients of a server on this machine, in a ``with`` block."""

    def __init__(self, port: int) -> None:
        self.visitors: list[Visitor] = []
        self.answered = 0  #: number of clients that have got something
        self.refused = 0  #: number of connections that were reset before, and made again at once
        self._port = port
        self._epoll = select.epoll()
        self._open: dict[int, Visitor] = {}

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for visitor in self._open.values():
            visitor.leave("close")
        self._epoll.close()

    def come(self, number: int, path: str, within: float = 0.0) -> None:
        """Connect, evenly over the time, and request the stream."""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        began = time.monotonic()
        for index in range(number):
            visitor = Visitor(f"127.0.0.{2 + index % _ADDRESSES}", request)
            self.visitors.append(visitor)
            self._connect(visitor)
            if index % _STRIDE == 0:  # not before their time
                ahead = began + within * index / number - time.monotonic()
                self.read(max(0.0, ahead))

    def read(self, seconds: float) -> None:
        """Read what has come, or comes first within this time."""
        for descriptor, events in self._epoll.poll(seconds, 1000):
            visitor = self._open[descriptor]
            try:
                if events & select.EPOLLOUT:
                    visitor.socket.send(visitor.request)
                    self._epoll.modify(descriptor, select.EPOLLIN)
                else:
                    self._take(visitor)
            except OSError as error:
                if error.errno not in (errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE):
                    raise
                self._lose(visitor)

    def read_until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
            self.read(0.05)

    def leave(self, visitors: Sequence[Visitor], how: Sequence[str]) -> None:
        """Disconnect these clients, in these ways by turns."""
        for index, visitor in enumerate(visitors):
            del self._open[visitor.socket.fileno()]
            visitor.leave(how[index % len(how)])

    def _connect(self, visitor: Visitor) -> None:
        client = visitor.socket = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        client.bind((visitor.address, 0))
        visitor.began = visitor.began or time.monotonic()
        client.connect_ex(("127.0.0.1", self._port))
        self._open[client.fileno()] = visitor
        self._epoll.register(client.fileno(), select.EPOLLOUT)

    def _take(self, visitor: Visitor) -> None:
        data = visitor.socket.recv(65_536)
        if not data:
            self._lose(visitor)
        elif not visitor.received:
            visitor.answered = time.monotonic()
            self.answered += 1
        visitor.received += data

    def _lose(self, visitor: Visitor) -> None:
        del self._open[visitor.socket.fileno()]
        visitor.socket.close()
        if not visitor.received:
            self.refused += 1
            self._connect(visitor)
