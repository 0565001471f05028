"""What decides whether a stream is handed off, and how its client is let go: a fake system counts bytes."""

from __future__ import annotations

import socket
import sys
from typing import Any
from unittest.mock import MagicMock

import pytest

from flask_sse_emitters.runtime.socket_monitor import SOCKET_MONITOR
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.writers import socket_writer
from flask_sse_emitters.writers.handoff import Call, Facts, advice, why_not
from flask_sse_emitters.writers.socket_writer import LINGER_SECONDS, SocketWriter
from tests.support.waiting import until
from tests.unit.doubles.clock import ManualScheduler, emitter_at

YES = Facts(
    mode="auto",
    is_known_worker=True,
    has_tls=False,
    is_http2=False,
    is_uwsgi=False,
    hangups_show=True,
    is_own_body=True,
    is_own_iteration=True,
    is_own_start_response=True,
    is_begun=True,
)
#: Each fact that prevents it, by the reason that is given.
OBSTACLES: dict[str, dict[str, Any]] = {
    "SSE_HANDOFF is off": {"mode": "off"},
    "the server is not gunicorn with a worker of its own": {"is_known_worker": False},
    "the worker itself does TLS": {"has_tls": True},
    "the client speaks HTTP/2": {"is_http2": True},
    "the worker speaks uwsgi": {"is_uwsgi": True},
    "this system does not tell when a client leaves": {"hangups_show": False},
    "the app has put another body around the stream": {"is_own_body": False},
    "the response has a Content-Length, or has not begun": {"is_begun": False},
    "a middleware has replaced start_response": {"is_own_start_response": False},
    "a middleware iterates over the stream": {"is_own_iteration": False},
}


@pytest.mark.parametrize("reason", OBSTACLES)
def test_handoff_obstacle_holds_in_mode_on_unless_it_is_a_middleware(reason: str) -> None:
    assert why_not(YES) is None
    facts = YES._replace(**OBSTACLES[reason])
    assert why_not(facts) == reason
    assert advice(reason), "it says what to change"
    if facts.mode != "off":
        assert why_not(facts._replace(mode="on")) == (None if reason.startswith("a middleware") else reason)


def test_handoff_of_a_client_that_has_left_already_is_no_obstacle(pair: tuple[socket.socket, socket.socket]) -> None:
    """Else a worker with one thread would answer 500 because of what shows it at once that the client has left."""
    server, client = pair
    watcher = MagicMock()
    watch = SOCKET_MONITOR.watch(server.fileno(), watcher)
    client.close()
    until(lambda: watcher.on_hang_up.called, "the monitor to see that it has left")
    call = Call({"wsgi.multithread": False}, None, iter(()), sys._getframe())
    assert call.facts("auto", watch).hangups_show
    SOCKET_MONITOR.forget(watch)


@pytest.fixture
def system(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """Return what watches sockets, and says how much a client has not acknowledged."""
    system = MagicMock()
    monkeypatch.setattr(socket_writer, "SOCKET_MONITOR", system)
    monkeypatch.setattr(socket_writer, "SCHEDULER", scheduler)
    return system


@pytest.mark.parametrize("write_seconds", [0, LINGER_SECONDS / 2, 30])
def test_finished_client_is_kept_while_it_acknowledges(
    write_seconds: float, system: MagicMock, scheduler: ManualScheduler, pair: tuple[socket.socket, socket.socket]
) -> None:
    server, _ = pair
    server.setblocking(False)
    emitter = emitter_at(scheduler)
    stream = stream_of(emitter)
    stream.settings = stream.deadlines.settings = type(stream.settings)(write_seconds=write_seconds)
    writer = SocketWriter(stream, server, True, object(), ())  # type: ignore[arg-type]
    stream.begin(writer)
    stream.take_over(writer)
    emitter.complete()
    system.unsent.return_value = 50
    writer.begin()
    for _ in range(20):
        system.unsent.return_value -= 1
        scheduler.pass_time(LINGER_SECONDS)
        system.forget.assert_not_called()
    scheduler.pass_time(write_seconds + 2 * LINGER_SECONDS)
    system.forget.assert_called()  # it acknowledges nothing any more
