"""A proxy that passes responses on one byte at a time."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType

#: Long repetitions are cut in one place only, such as a megabyte of x.
_REPEATED = rb"(.{1,12}?)\1{99,}"

_SOCK_DIAG = 4  # the family of netlink sockets, and below what sock_diag(7) calls its request
_BY_FAMILY = 20
_REQUEST = 1
_ANY = 0xFFFFFFFF


class Splitter:
    """A proxy with a port of its own that sends each byte of a response once the client has read the one before.

    ::

        with Splitter(server.port) as line:
            connect(line.port)

    :param whole: a pattern of bytes that are not cut.
    """

    def __init__(self, port: int, whole: bytes) -> None:
        self._to = port
        self._piece = re.compile(b"%b|%b|." % (whole, _REPEATED), re.DOTALL)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.pieces = 0  #: number of pieces so far
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Splitter:
        self._begin(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        _shut(self._listener)
        self._threads[0].join()  # no new connections from now on
        _shut(*self._open)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._open):
            each.close()

    def _begin(self, *run: object) -> None:
        target, *arguments = run
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return  # the listener is closed
            there = socket.create_connection(("127.0.0.1", self._to))
            here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [here, there]
            self._begin(self._pass_requests, here, there)
            self._begin(self._split_answers, there, here)

    def _pass_requests(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while data := here.recv(65_536):
                there.sendall(data)
        _shut(here, there)

    def _split_answers(self, there: socket.socket, here: socket.socket) -> None:
        with suppress(OSError), _Unread(here) as unread:
            while data := there.recv(65_536):
                for piece in self._piece.finditer(data):
                    here.sendall(piece[0])
                    self.pieces += 1
                    while unread.count():
                        time.sleep(0.00002)
        _shut(here, there)


def _shut(*sockets: socket.socket) -> None:
    """Shut sockets down, so that their readers see the end; closing them would leave the readers waiting."""
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class _Unread:
    """Counts the bytes that the other end of a local connection has not read yet, as the kernel knows them."""

    def __init__(self, connection: socket.socket) -> None:
        theirs, ours = connection.getpeername(), connection.getsockname()
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)
        addresses = b"".join(socket.inet_aton(host).ljust(16, b"\0") for host, _ in (theirs, ours))
        wanted = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ANY)
        wanted += struct.pack("!HH", theirs[1], ours[1]) + addresses + struct.pack("=III", 0, _ANY, _ANY)
        self._request = struct.pack("=IHHII", 16 + len(wanted), _BY_FAMILY, _REQUEST, 1, 0) + wanted

    def __enter__(self) -> _Unread:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._netlink.close()

    def count(self) -> int:
        self._netlink.send(self._request)
        answer = self._netlink.recv(8192)
        (kind,) = struct.unpack_from("=H", answer, 4)
        if kind != _BY_FAMILY:
            return 0  # it has closed
        (count,) = struct.unpack_from("=I", answer, 16 + 56)
        return int(count)
