"""The socket monitor: disconnects and unsent bytes, seen without sending."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import partial

import pytest

from flask_sse_emitters.runtime import socket_monitor
from flask_sse_emitters.runtime.socket_monitor import SOCKET_MONITOR
from tests.support.waiting import until


class RecordingWatcher:
    """A watcher that records its notifications."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.on_hang_up, self.on_room, self.on_fork = (
            partial(self.calls.append, call) for call in ("left", "room", "forked")
        )


def test_disconnect_is_noticed_once_and_not_of_a_forgotten_client(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    watcher, forgotten = RecordingWatcher(), RecordingWatcher()
    watch = SOCKET_MONITOR.watch(server.fileno(), watcher)
    other, its_client = socket.socketpair()
    with other:
        SOCKET_MONITOR.forget(SOCKET_MONITOR.watch(other.fileno(), forgotten))
        its_client.close()
        client.sendall(b"bytes that are never read")
        client.close()
        until(lambda: watcher.calls, "the end")
        assert watch.shows_hang_up, "which decides whether a stream can be handed off, also of a client that has left"
        SOCKET_MONITOR.forget(watch)
        SOCKET_MONITOR.forget(watch)
    assert (watcher.calls, forgotten.calls) == (["left"], [])


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
