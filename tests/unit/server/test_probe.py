"""Answers to ``flask sse check``: a header about the proxied request, and comments that reveal buffering."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from flask import Flask, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, Event, SseEmitter, SseEmitters
from flask_sse_emitters.server.probe import COMMENTS, MAX_PROBES, PADDING_BYTES, PROBES
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import open_stream
from tests.support.waiting import until
from tests.unit.doubles.clock import ManualScheduler, emitter_at

NONCE = "0123456789abcdef"
COMMENTS_WANTED = {"Sse-Check": f"{NONCE}; comments"}


def make_app(scheduler: ManualScheduler, **given: int | str) -> tuple[Flask, SseEmitters]:
    app, emitters = Flask(__name__), SseEmitters()
    SSE(app)

    @app.get("/connect")
    def connect() -> SseEmitter:
        return emitters.add(emitter_at(scheduler, **given))

    @app.get("/page")
    def page() -> ResponseReturnValue:
        return str("Sse-Check" in request.headers)

    return app, emitters


def values_of(header: str) -> dict[str, str]:
    nonce, *values = header.split("; ")
    assert nonce == NONCE
    return dict(value.split("=") for value in values)


@pytest.mark.parametrize("asked", ["", "short", "x" * 65, f"{NONCE}; other", "<script>", f"{NONCE}\t"])
def test_probe_with_invalid_nonce_gets_no_header(asked: str, scheduler: ManualScheduler) -> None:
    app, _ = make_app(scheduler)
    with open_stream(app.test_client(), "/connect", headers={"Sse-Check": asked}) as stream:
        assert "Sse-Check" not in stream.response.headers


def test_probe_is_answered_by_streams_only_without_comments_for_head(scheduler: ManualScheduler) -> None:
    app, _ = make_app(scheduler)
    answer = app.test_client().get("/page", headers=COMMENTS_WANTED)
    assert answer.text == "True"
    assert "Sse-Check" not in answer.headers
    answer = app.test_client().head("/connect", headers=COMMENTS_WANTED)
    assert values_of(answer.headers["Sse-Check"])["comments"] == "0"


def test_probe_of_a_stream_over_for_good_is_answered_without_comments() -> None:
    """So a check can tell this package's 204 from any other."""
    app = Flask(__name__)
    sse = SSE(app)
    app.register_blueprint(sse.blueprint)
    sse.channel("a", public=True).complete()
    answer = app.test_client().get("/events/a", headers=COMMENTS_WANTED)
    assert answer.status_code == 204
    assert values_of(answer.headers["Sse-Check"])["comments"] == "0"
    assert "Sse-Check" not in app.test_client().get("/events/a").headers


def test_probes_at_a_time_are_limited(scheduler: ManualScheduler) -> None:
    app, emitters = make_app(scheduler)

    def comments(stack: ExitStack) -> int:
        stream = stack.enter_context(open_stream(app.test_client(), "/connect", headers=COMMENTS_WANTED))
        return int(values_of(stream.response.headers["Sse-Check"])["comments"])

    until(lambda: PROBES._count == 0, "other tests to end")
    with ExitStack() as stack:
        assert [comments(stack) for _ in range(MAX_PROBES + 1)] == [COMMENTS] * MAX_PROBES + [0]
        scheduler.pass_time(10)
        assert comments(stack) == COMMENTS
        emitters.complete()
        scheduler.pass_time(10)
        assert [comments(stack) for _ in range(MAX_PROBES)] == [COMMENTS] * MAX_PROBES, "ended streams are not counted"
    scheduler.pass_time(10)


@pytest.mark.parametrize("overflow", ["close", "drop_oldest", "coalesce"])
def test_probe_comment_never_replaces_an_event(overflow: str, scheduler: ManualScheduler) -> None:
    """While an event is pending, no comment is written; and at most one event may be pending here."""
    app, emitters = make_app(scheduler, max_pending=1, overflow=overflow)
    with open_stream(app.test_client(), "/connect", headers=COMMENTS_WANTED) as stream:
        assert stream.ready() == []
        emitters.send("taken at once")
        emitters.send(Event("kept", event="a"))
        [emitter] = emitters
        until(lambda: emitter.pending == 1, "the event to wait")
        scheduler.pass_time(10)
        assert (emitter.is_open, emitter.dropped, emitter.pending) == (True, 0, 1)
        assert stream.ready() == [Event("taken at once"), Event("kept", event="a")]


def test_probe_padding_is_omitted_with_low_byte_limit(scheduler: ManualScheduler) -> None:
    app, emitters = make_app(scheduler, max_pending_bytes=PADDING_BYTES)
    with open_stream(app.test_client(), "/connect", headers=COMMENTS_WANTED) as stream:
        body = b""
        for _ in range(COMMENTS):
            assert stream.ready() == []
            scheduler.pass_time(0.5)
            [emitter] = emitters
            body += stream_of(emitter).outgoing.backlog._frames[0].payload
        assert (len(body) < 200, emitter.is_open) == (True, True)
        assert b": check %d\n\n" % COMMENTS in body
