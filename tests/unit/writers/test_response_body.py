"""The body that a server iterates over: what its pieces are, whatever wakes it."""

from __future__ import annotations

import threading

from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.outgoing import WriterState
from flask_sse_emitters.writers.response_body import ResponseBody
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler, emitter_at


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
