"""Writers let others run after a time slice, however much there is to write."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.runtime.gevent_loop import TIME_SLICE_SECONDS
from flask_sse_emitters.runtime.socket_monitor import SOCKET_MONITOR
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.stream import Stream
from flask_sse_emitters.writers import response_body as wsgi
from flask_sse_emitters.writers import socket_writer as direct
from flask_sse_emitters.writers.response_body import ResponseBody
from flask_sse_emitters.writers.socket_writer import SocketWriter
from tests.unit.doubles.clock import ManualScheduler


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SseEmitter]:
    """An emitter with much output, each piece of which takes a whole time slice."""
    scheduler, emitter = ManualScheduler(), SseEmitter()
    for module in (direct, wsgi):
        monkeypatch.setattr(module, "SCHEDULER", scheduler)

    def next_output(_stream: Stream, **_: object) -> bytes:
        scheduler.now += 2 * TIME_SLICE_SECONDS
        return b"x"

    monkeypatch.setattr(Stream, "next_output", next_output)
    yield emitter
    emitter.complete()


def test_handed_off_client_with_long_replay_yields_after_a_time_slice(slow: SseEmitter) -> None:
    server, client = socket.socketpair()
    with server, client:
        watch = SOCKET_MONITOR.watch(server.fileno(), ResponseBody(stream_of(slow), b"", {}, "off"))
        writer = SocketWriter(stream_of(slow), server, False, watch, ())
        assert writer.begin(), "there is more to do"
        assert writer.begin()
        assert client.recv(100) == b"x"
        SOCKET_MONITOR.forget(watch)


def test_response_body_with_long_replay_yields_after_a_time_slice(
    slow: SseEmitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    yields: list[None] = []
    monkeypatch.setattr(wsgi, "yield_now", lambda: yields.append(None))
    stream = ResponseBody(stream_of(slow), b": hello\n\n", {}, "off")
    pieces = [next(stream) for _ in range(5)]
    assert len(pieces) - 1 == len(yields)
    stream.close()
