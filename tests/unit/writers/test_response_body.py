"""The body of a response, which a server reads piece by piece."""

from __future__ import annotations

import socket
import threading

import pytest
from flask import Flask
from flask.testing import EnvironBuilder

from flask_sse_emitters import SSE, Event, SseEmitter
from flask_sse_emitters.runtime.socket_monitor import SOCKET_MONITOR
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.outgoing import WriterState
from flask_sse_emitters.writers.response_body import FIRST_BYTES, ResponseBody
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler, emitter_at


def test_socket_is_watched_until_server_closes_response(pair: tuple[socket.socket, socket.socket]) -> None:
    """A process that exits waits for watched sockets: the last chunk is written after the last piece of the body."""
    server, _ = pair
    app = Flask(__name__)
    SSE(app)
    emitter = SseEmitter()
    app.add_url_rule("/", view_func=lambda: emitter)
    environ = {**EnvironBuilder(app).get_environ(), "werkzeug.socket": server, "wsgi.multithread": True}
    others = SOCKET_MONITOR.watchers()  # those that earlier tests have left, which may go at any moment
    body = app(environ, lambda *_: lambda _: None)
    pieces = iter(body)
    next(pieces)
    emitter.complete()
    assert list(pieces) == []
    assert len([each for each in SOCKET_MONITOR.watchers() if each not in others]) == 1
    body.close()  # type: ignore[attr-defined]
    assert [each for each in SOCKET_MONITOR.watchers() if each not in others] == []


def test_response_body_that_is_woken_for_nothing_yields_no_empty_piece(scheduler: ManualScheduler) -> None:
    """A server may take ``b""`` for the end, or send it as the last chunk."""
    emitter = emitter_at(scheduler)
    stream = stream_of(emitter)
    body = ResponseBody(stream, b"preamble", {}, "auto")
    pieces: list[bytes] = []
    reader = threading.Thread(target=lambda: pieces.extend(body), daemon=True)
    reader.start()
    until(lambda: stream.outgoing.state is WriterState.IDLE, "the body to wait")
    with stream.lock:
        assert stream.outgoing.wake() is body
    body.wake()
    until(lambda: stream.outgoing.state is WriterState.IDLE, "the body to wait again")
    emitter.send("an event")
    emitter.complete()
    reader.join(PATIENCE)
    assert not reader.is_alive()
    assert b"".join(pieces) == b"preamble" + b"data: an event\n\n"
    assert b"" not in pieces


@pytest.mark.parametrize(("size", "goes_along"), [(100, True), (FIRST_BYTES, True), (FIRST_BYTES + 1, False)])
def test_response_body_on_a_worker_with_threads_begins_with_what_is_little(
    pair: tuple[socket.socket, socket.socket], scheduler: ManualScheduler, size: int, goes_along: bool
) -> None:
    """A write of more may wait for the client. With nothing left, the hand-off need not wake the thread that writes."""
    server, _ = pair
    emitter = emitter_at(scheduler)
    event = Event("x" * (size - len("data: \n\n")))
    emitter.send(event)
    environ = {"gunicorn.socket": server, "wsgi.multithread": True}
    body = ResponseBody(stream_of(emitter), b"preamble", environ, "auto")
    try:
        assert next(body) == b"preamble" + (event.encode() if goes_along else b"")
        assert emitter.pending == (not goes_along)
    finally:
        body.close()
