"""Servers that answer wrongly, late, or not at all."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType

from tests.support.waiting import PATIENCE


class Request:
    """A request of a client.

    :param stopped: is set when the server stops.
    """

    def __init__(self, head: str, connection: socket.socket, stopped: threading.Event) -> None:
        self.line, *lines = head.split("\r\n")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self._connection = connection
        self._stopped = stopped

    @property
    def method(self) -> str:
        return self.line.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    @property
    def nonce(self) -> str:
        return self.headers.get("sse-check", "").partition(";")[0]

    @property
    def is_first(self) -> bool:
        """Whether this is the request for the stream with comments."""
        return self.headers.get("sse-check", "").endswith("; comments")

    def hold(self, seconds: float | None = None) -> bytes:
        """Send nothing until the client disconnects, or for ``seconds``."""
        if seconds is None:
            with suppress(OSError):
                self._connection.recv(1)
        else:
            self._stopped.wait(seconds)
        return b""


#: Makes the pieces of an answer.
Answering = Callable[[Request], Iterator[bytes]]


class TinyServer:
    """A server that runs in a ``with`` block, with a thread for each connection.

    :param context: makes it speak TLS.
    """

    def __init__(self, answering: Answering, context: ssl.SSLContext | None = None) -> None:
        self._answering = answering
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopped = threading.Event()
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self.requests: list[Request] = []
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> TinyServer:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE)
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    @property
    def url(self) -> str:
        return f"{'http' if self._context is None else 'https'}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65_536)
            if not piece:
                return
            head += piece
        request = Request(head.decode("latin-1").partition("\r\n\r\n")[0], connection, self._stopped)
        self.requests.append(request)
        for piece in self._answering(request):
            connection.sendall(piece)


def head(*lines: str, status: str = "200 OK", kind: str | None = "text/event-stream") -> bytes:
    """Return the head of a chunked response."""
    given = [] if kind is None else [f"Content-Type: {kind}"]
    return "\r\n".join([f"HTTP/1.1 {status}", *given, "Transfer-Encoding: chunked", *lines, "", ""]).encode()


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


#: The last chunk of such a response.
END = b"0\r\n\r\n"
