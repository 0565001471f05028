"""A proxy that passes responses on one byte at a time."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

#: Long repetitions are cut in one place only, such as a megabyte of x.
_REPEATED = rb"(.{1,12}?)\1{99,}"

_SOCK_DIAG = 4  # the family of netlink sockets, and below what sock_diag(7) calls its request
_BY_FAMILY = 20
_REQUEST = 1
_ANY = 0xFFFFFFFF


class Splitter(ThreadingTCPServer):
    """A proxy that sends each byte of a response once the client has read the one before.

    :param port: of the server.
    :param whole: a pattern of bytes that are not cut.
    """

    daemon_threads = True  # a browser keeps its connections, which end with the server behind

    def __init__(self, port: int, whole: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.port: int = self.server_address[1]
        self.pieces = 0  #: number of pieces so far
        self.server_port = port
        self.piece = re.compile(b"%b|%b|." % (whole, _REPEATED), re.DOTALL)


@contextmanager
def splitting(port: int, whole: bytes) -> Iterator[Splitter]:
    with Splitter(port, whole) as splitter:
        thread = threading.Thread(target=splitter.serve_forever)
        thread.start()
        try:
            yield splitter
        finally:
            splitter.shutdown()
            thread.join()


class _Connection(BaseRequestHandler):
    server: Splitter
    request: socket.socket

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with socket.create_connection(("127.0.0.1", self.server.server_port)) as there:
            requests = threading.Thread(target=self._pass_requests, args=(there,), daemon=True)
            requests.start()
            self._split_responses(there)
            for each in (self.request, there):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)  # so that whoever still reads there sees the end
            requests.join()

    def _pass_requests(self, there: socket.socket) -> None:
        with suppress(OSError):
            while data := self.request.recv(65_536):
                there.sendall(data)
            there.shutdown(socket.SHUT_RDWR)

    def _split_responses(self, there: socket.socket) -> None:
        with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
            query = _query_of_peer(self.request)
            while data := there.recv(65_536):
                for piece in self.server.piece.finditer(data):
                    self.request.sendall(piece[0])
                    self.server.pieces += 1
                    while _unread(kernel, query):
                        time.sleep(0.00002)


def _query_of_peer(connection: socket.socket) -> bytes:
    """Return what asks the kernel for the other end of a local connection."""
    theirs, ours = connection.getpeername(), connection.getsockname()
    addresses = b"".join(socket.inet_aton(host).ljust(16, b"\0") for host, _ in (theirs, ours))
    wanted = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ANY)
    wanted += struct.pack("!HH", theirs[1], ours[1]) + addresses + struct.pack("=III", 0, _ANY, _ANY)
    return struct.pack("=IHHII", 16 + len(wanted), _BY_FAMILY, _REQUEST, 1, 0) + wanted


def _unread(kernel: socket.socket, query: bytes) -> int:
    """Return how many bytes it has not read yet."""
    kernel.send(query)
    answer = kernel.recv(8192)
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind != _BY_FAMILY:
        return 0  # it has closed
    (count,) = struct.unpack_from("=I", answer, 16 + 56)
    return int(count)
