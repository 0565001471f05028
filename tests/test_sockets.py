"""What a socket tells of its client, without sending anything."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from flask import Flask
from flask.testing import EnvironBuilder

from flask_sse_emitters import SSE, SseEmitter
from flask_sse_emitters.runtime.socket_monitor import SOCKET_MONITOR

from .waiting import until


class Note:
    """A watcher that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_hang_up(self) -> None:
        self.told.append("left")

    def on_room(self) -> None:
        self.told.append("room")

    def on_fork(self) -> None:
        self.told.append("forked")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server, client:
        yield server, client


def test_a_client_that_leaves_is_noticed_once(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    note = Note()
    watch = SOCKET_MONITOR.watch(server.fileno(), note)
    client.sendall(b"bytes that nobody reads")
    client.close()
    until(lambda: note.told, "the end")
    SOCKET_MONITOR.forget(watch)
    SOCKET_MONITOR.forget(watch)
    assert note.told == ["left"]


def test_a_client_that_is_forgotten_is_noticed_no_more(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    forgotten, note = Note(), Note()
    SOCKET_MONITOR.forget(SOCKET_MONITOR.watch(server.fileno(), forgotten))
    other, its_client = socket.socketpair()
    watch = SOCKET_MONITOR.watch(other.fileno(), note)
    client.close()
    its_client.close()
    until(lambda: note.told, "the end of the other")
    SOCKET_MONITOR.forget(watch)
    assert forgotten.told == []
    other.close()


def test_what_the_client_has_not_taken_shows_and_shrinks(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    watch = SOCKET_MONITOR.watch(server.fileno(), Note())
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


def test_a_cut_ends_the_connection_for_both(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    watch = SOCKET_MONITOR.watch(server.fileno(), Note())
    SOCKET_MONITOR.cut(watch)
    assert client.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        server.send(b"x")
    SOCKET_MONITOR.forget(watch)
    SOCKET_MONITOR.cut(watch)


def test_what_cannot_be_watched_is_said_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    watch = SOCKET_MONITOR.watch(-1, Note())
    assert "noticed at their next heartbeat only" in caplog.text
    SOCKET_MONITOR.forget(watch)


def test_a_stream_is_awaited_until_the_server_is_done_with_its_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """A process that exits waits for the sockets that are known: the last chunk is written after the last piece."""
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
