"""A client that reads a stream incrementally, and can disconnect in every way that clients do."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from flask_sse_emitters import Event
from flask_sse_emitters.testing import decode, read_events
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until


def new_name() -> str:
    return uuid.uuid4().hex


class Client:
    """A request whose response is read incrementally."""

    def __init__(
        self,
        server: Server,
        path: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        version: int = 11,
        body: str | None = None,
    ) -> None:
        with ExitStack() as stack:  # who tries again would else leave sockets open, for a later test to be warned of
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
            self._connection = stack.enter_context(closing(connection))
            connection._http_vsn = version  # type: ignore[attr-defined]
            connection._http_vsn_str = f"HTTP/{version / 10}"  # type: ignore[attr-defined]
            connection.connect()
            #: A duplicate, because http.client closes its own once a response without keep-alive has been read.
            self.socket: socket.socket = stack.enter_context(connection.sock.dup())
            connection.request(method, path, body, headers or {})
            self.response = connection.getresponse()
            stack.pop_all()

    def events(self, n: int) -> list[Event]:
        return read_events(self.response, n)

    def texts(self, n: int) -> list[str]:
        return [event.data for event in self.events(n)]

    def read_some(self) -> bytes:
        """Return what has come, at least a byte; ``b""`` at the end."""
        return self.response.read1()

    def rest(self) -> bytes:
        """Return everything up to a clean end; raise if there is none."""
        return self.response.read()

    def close(self) -> None:
        self.response.close()
        self._connection.close()
        self.socket.close()

    def reset(self) -> None:
        """Disconnect with a reset in place of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


@contextmanager
def connected(server: Server, path: str, **options: Any) -> Iterator[Client]:
    client = Client(server, path, **options)
    try:
        yield client
    finally:
        client.close()


def slow_client(server: Server, path: str, headers: str = "", buffer: int = 4096) -> socket.socket:
    """Return the socket of a client with a small buffer, which has sent its request and reads nothing yet.

    :param headers: further ones, each with its line end.
    """
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.settimeout(PATIENCE)
    raw.connect(("127.0.0.1", server.port))
    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    return raw


def whole_response(raw: socket.socket) -> list[str]:
    """Return the texts of all events up to a clean end of the body and of the connection."""
    response = http.client.HTTPResponse(raw)
    response.begin()
    texts = [event.data for event in decode(response.read())]
    assert raw.recv(1) == b"", "the connection ends, too"
    return texts


def get(server: Server, path: str) -> Any:
    return _answer(server, "GET", path)


def post(server: Server, path: str, data: object = None) -> Any:
    return _answer(server, "POST", path, json.dumps(data), {"Content-Type": "application/json"})


def _answer(server: Server, *request: Any) -> Any:
    status, body = answer(server, *request)
    assert status < 300, body
    return json.loads(body or "null")


def answer(server: Server, *request: Any) -> tuple[int, bytes]:
    """Make a request, given as for ``http.client``; return status and whole body of the response."""
    try:
        return _answer_once(server, *request)
    except ConnectionError:
        if not server.drops_unread:
            raise
        return _answer_once(server, *request)


def _answer_once(server: Server, *request: Any) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.request(*request)
        with connection.getresponse() as response:
            return response.status, response.read()


def answer_to_the_end(server: Server, path: str) -> tuple[bytes, bytes]:
    """GET and return head and body as they were sent until the server closed the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: raw.recv(65_536), b"")).partition(b"\r\n\r\n")
    return head, body


def new_app(server: Server, channels: bool = False, **given: Any) -> str:
    """Have the site of ``tests/apps/handoff.py`` serve one more app; return its path.

    :param channels: it is like ``tests/apps/channels.py``, in place of ``tests/apps/servers/contract.py``.
    :param given: its config, and for the latter a ``middleware``.
    """
    name = new_name()
    post(server, f"/apps/{name}", {"channels": channels, **given})
    return f"/{name}"


def state(server: Server, name: str, app: str = "") -> dict[str, Any]:
    found: dict[str, Any] = get(server, f"{app}/state/{name}")
    return found


def stats(server: Server, app: str = "") -> dict[str, Any]:
    found: dict[str, Any] = get(server, f"{app}/stats")
    return found


def ended(server: Server, name: str, callbacks: int, app: str = "") -> dict[str, Any]:
    """Return the emitter's state once it has ended and that many callbacks have run."""

    def found() -> dict[str, Any] | None:
        now = state(server, name, app)
        return now if now.get("open") is False and len(now["journal"]) >= callbacks else None

    return until(found, f"the end of {name} and {callbacks} callbacks") or {}
