"""How a client that was handed off is let go, without a server: time stands still, and a fake system counts bytes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.writers import socket_writer
from flask_sse_emitters.writers.socket_writer import LINGER_SECONDS, SocketWriter
from tests.unit.doubles.clock import ManualScheduler, emitter_at


class FakeSystem:
    """Watches one socket, and says how much its client has not acknowledged."""

    def __init__(self) -> None:
        self.unacknowledged = 0
        self.is_forgotten = False

    def unsent(self, _watch: Any) -> int:
        return self.unacknowledged

    def forget(self, _watch: Any) -> None:
        self.is_forgotten = True


@pytest.fixture
def system(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    system = FakeSystem()
    monkeypatch.setattr(socket_writer, "SOCKET_MONITOR", system)
    monkeypatch.setattr(socket_writer, "SCHEDULER", scheduler)
    return system


@pytest.fixture
def client() -> Iterator[socket.socket]:
    server, client = socket.socketpair()
    with server, client:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("write_seconds", [0, LINGER_SECONDS / 2, 30])
def test_finished_client_is_kept_while_it_acknowledges(
    write_seconds: float, system: FakeSystem, scheduler: ManualScheduler, client: socket.socket
) -> None:
    emitter = emitter_at(scheduler)
    stream = stream_of(emitter)
    stream.settings = stream.deadlines.settings = type(stream.settings)(write_seconds=write_seconds)
    writer = SocketWriter(stream, client, True, object(), ())  # type: ignore[arg-type]
    stream.begin(writer)
    stream.take_over(writer)
    emitter.complete()
    system.unacknowledged = 50
    writer.begin()
    for _ in range(20):
        system.unacknowledged -= 1
        scheduler.pass_time(LINGER_SECONDS)
        assert not system.is_forgotten
    scheduler.pass_time(write_seconds + 2 * LINGER_SECONDS)
    assert system.is_forgotten, "it acknowledges nothing any more"
