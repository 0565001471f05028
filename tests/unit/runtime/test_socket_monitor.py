"""The socket monitor: disconnects and unsent bytes, seen without sending."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from flask import Flask
from flask.testing import EnvironBuilder

from flask_sse_emitters import SSE, SseEmitter
from flask_sse_emitters.runtime import socket_monitor
from flask_sse_emitters.runtime.socket_monitor import SOCKET_MONITOR
from tests.support.waiting import until


class RecordingWatcher:
    """A watcher that records its notifications."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_hang_up(self) -> None:
        self.calls.append("left")

    def on_room(self) -> None:
        self.calls.append("room")

    def on_fork(self) -> None:
        self.calls.append("forked")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server, client:
        yield server, client


def test_disconnect_is_noticed_once(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    watcher = RecordingWatcher()
    watch = SOCKET_MONITOR.watch(server.fileno(), watcher)
    client.sendall(b"bytes that are never read")
    client.close()
    until(lambda: watcher.calls, "the end")
    SOCKET_MONITOR.forget(watch)
    SOCKET_MONITOR.forget(watch)
    assert watcher.calls == ["left"]


def test_disconnect_of_forgotten_client_is_not_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    forgotten, watcher = RecordingWatcher(), RecordingWatcher()
    SOCKET_MONITOR.forget(SOCKET_MONITOR.watch(server.fileno(), forgotten))
    other, its_client = socket.socketpair()
    watch = SOCKET_MONITOR.watch(other.fileno(), watcher)
    client.close()
    its_client.close()
    until(lambda: watcher.calls, "the end of the other")
    SOCKET_MONITOR.forget(watch)
    assert forgotten.calls == []
    other.close()


def test_unsent_bytes_grow_and_shrink_with_client_reads(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    watch = SOCKET_MONITOR.watch(server.fileno(), RecordingWatcher())
    assert SOCKET_MONITOR.unsent(watch) == 0
    server.setblocking(False)
    with suppress(BlockingIOError):
        while server.send(b"x" * 65_536):
            pass
    full = SOCKET_MONITOR.unsent(watch)
    assert full
    until(lambda: client.recv(65_536) and (SOCKET_MONITOR.unsent(watch) or 0) < full, "some progress")
    SOCKET_MONITOR.forget(watch)
    assert SOCKET_MONITOR.unsent(watch) is None


def test_cut_ends_connection_on_both_sides(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    watch = SOCKET_MONITOR.watch(server.fileno(), RecordingWatcher())
    SOCKET_MONITOR.cut(watch)
    assert client.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        server.send(b"x")
    SOCKET_MONITOR.forget(watch)
    SOCKET_MONITOR.cut(watch)


def test_unwatchable_socket_is_logged_and_raises_no_error(caplog: pytest.LogCaptureFixture) -> None:
    watch = SOCKET_MONITOR.watch(-1, RecordingWatcher())
    assert "noticed at their next heartbeat only" in caplog.text
    SOCKET_MONITOR.forget(watch)


def test_socket_is_watched_until_server_closes_response(pair: tuple[socket.socket, socket.socket]) -> None:
    """A process that exits waits for watched sockets: the last chunk is written after the last piece of the body."""
    server, _ = pair
    app = Flask(__name__)
    SSE(app)
    emitter = SseEmitter()
    app.add_url_rule("/", view_func=lambda: emitter)
    environ = {**EnvironBuilder(app).get_environ(), "werkzeug.socket": server, "wsgi.multithread": True}
    before = len(SOCKET_MONITOR)
    body = app(environ, lambda *_: lambda _: None)
    pieces = iter(body)
    next(pieces)
    emitter.complete()
    assert list(pieces) == []
    assert len(SOCKET_MONITOR) == before + 1
    body.close()  # type: ignore[attr-defined]
    assert len(SOCKET_MONITOR) == before


def test_dead_descriptor_is_had_where_system_has_no_epoll(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a forked child it takes the place of the parent's client."""
    server, client = pair
    monkeypatch.setattr(socket_monitor, "_dead_fd", [])
    monkeypatch.setattr(socket_monitor, "_new_epoll", lambda: (None, None))
    descriptor = os.dup(server.fileno())
    server.close()
    socket_monitor.replace_with_dead_fd(descriptor)
    assert client.recv(1) == b"", "nothing keeps it connected"
    os.close(descriptor)
    for dead in socket_monitor._dead_fd:
        dead.close()
