"""What a socket tells of its client, without sending anything."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from flask_sse_emitters.hangups import HANGUPS

from .waiting import until


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
    noticed: list[str] = []
    watch = HANGUPS.watch(server.fileno(), lambda: noticed.append("left"))
    client.sendall(b"bytes that nobody reads")
    client.close()
    until(lambda: noticed, "the end")
    HANGUPS.forget(watch)
    HANGUPS.forget(watch)
    assert noticed == ["left"]


def test_a_client_that_is_forgotten_is_noticed_no_more(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    HANGUPS.forget(HANGUPS.watch(server.fileno(), lambda: pytest.fail("it was forgotten")))
    other, its_client = socket.socketpair()
    noticed: list[str] = []
    watch = HANGUPS.watch(other.fileno(), lambda: noticed.append("left"))
    client.close()
    its_client.close()
    until(lambda: noticed, "the end of the other")
    HANGUPS.forget(watch)
    other.close()


def test_what_the_client_has_not_taken_shows_and_shrinks(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    watch = HANGUPS.watch(server.fileno(), lambda: None)
    assert HANGUPS.unsent(watch) == 0
    server.setblocking(False)
    with suppress(BlockingIOError):
        while server.send(b"x" * 65_536):
            pass
    full = HANGUPS.unsent(watch)
    assert full
    until(lambda: client.recv(65_536) and (HANGUPS.unsent(watch) or 0) < full, "some progress")
    HANGUPS.forget(watch)
    assert HANGUPS.unsent(watch) is None


def test_a_cut_ends_the_connection_for_both(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    watch = HANGUPS.watch(server.fileno(), lambda: None)
    HANGUPS.cut(watch)
    assert client.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        server.send(b"x")
    HANGUPS.forget(watch)
    HANGUPS.cut(watch)


def test_what_cannot_be_watched_is_said_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    watch = HANGUPS.watch(-1, lambda: None)
    assert "noticed at its next heartbeat only" in caplog.text
    HANGUPS.forget(watch)
