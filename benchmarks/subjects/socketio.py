"""python-socketio with Redis, and its clients: WebSockets that have joined a room."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from ..load import AT_ONCE, Load
from ..processes import LOAD_CORE, BenchmarkFailed, on_core
from .gunicorn import OnRedis
from .redis import ServerWithRedis

_PATIENCE = 30

_HANDSHAKE = (
    "GET /socket.io/?EIO=4&transport=websocket&channel={} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

#: A text frame with "40", which joins the default namespace. Its mask is 0.
_JOIN = b"\x81\x82\0\0\0\x0040"


class SocketIoOnRedis(OnRedis):
    app = "socketio_app"
    packages = (*OnRedis.packages, "socketio", "simple_websocket")
    url_setting = "REDIS_URL"
    most_clients = 5_000

    def server(self) -> ServerWithRedis:
        return _SocketIoServer()


class _SocketIoServer(ServerWithRedis):
    """The load client knows only event streams: these clients are sockets of this process."""

    def __init__(self) -> None:
        super().__init__()
        self._clients: list[socket.socket] = []

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        super().stop()

    def connect_each(self, _load: Load, count: int, name: str, /) -> None:
        with on_core(LOAD_CORE):
            for first in range(0, count, AT_ONCE):
                self._clients += self._join(
                    [f"{name}-{number}" for number in range(first, min(count, first + AT_ONCE))]
                )

    @contextlib.contextmanager
    def reader(self, channel: str) -> Iterator[socket.socket]:
        (client,) = self._join([channel])
        with client:
            yield client

    def _join(self, channels: list[str]) -> list[socket.socket]:
        """At once, each its channel."""
        clients = [socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE) for _ in channels]
        for client, channel in zip(clients, channels, strict=True):
            client.sendall(_HANDSHAKE.format(channel).encode())
        for client in clients:
            _read_until(client, b"pingTimeout")
            client.sendall(_JOIN)
        for client in clients:
            _read_until(client, b'40{"sid"')
        return clients


def _read_until(client: socket.socket, what: bytes) -> None:
    got = b""
    while what not in got:
        more = client.recv(65536)
        if not more:
            raise BenchmarkFailed(f"python-socketio closed a connection after {got!r}")
        got += more
