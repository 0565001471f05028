"""Answers to ``flask sse check``: a header about the proxied request, and comments that reveal buffering."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from flask import Flask, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, Event, SseEmitter, SseEmitters
from flask_sse_emitters.server.probe import COMMENTS, MAX_PROBES, PADDING_BYTES, PROBES
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode, open_stream
from tests.support.client import Client, connected, get, post
from tests.support.servers import Server
from tests.support.waiting import until
from tests.unit.doubles.clock import ManualScheduler, emitter_at

NONCE = "0123456789abcdef"
COMMENTS_WANTED = {"Sse-Check": f"{NONCE}; comments"}


@pytest.fixture(scope="module", params=["gevent", "gevent_off", "gthread", "werkzeug"])
def channels(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, "tests.apps.channels:app") as server:
        get(server, "/stats")
        yield server


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


@pytest.mark.parametrize("path", ["/events?channel=probed", "/connect"], ids=["a channel", "an emitter of a view"])
def test_probe_gets_comments_and_padding_and_unchanged_events(path: str, channels: Server) -> None:
    with connected(channels, path, headers=COMMENTS_WANTED) as client, connected(channels, path) as other:
        header = values_of(client.response.headers["Sse-Check"])
        assert header["comments"] == str(COMMENTS)
        assert "Sse-Check" not in other.response.headers
        before = get(channels, "/stats")
        body = read_to(client, b": check 1\n\n")
        assert get(channels, "/stats")["published"] == before["published"]
        post(channels, "/publish/probed" if path.startswith("/events") else "/send", "between")
        body += read_to(client, b"data: between\n\n")
        while b"check %d\n: " % COMMENTS not in body or len(body) < PADDING_BYTES:
            body += client.read_some()
        seen = read_to(other, b"data: between\n\n")
    assert b"check" not in seen
    assert [event.data for event in decode(body)] == ["between"]
    assert decode(body) == decode(seen), "comments have no ids"
    numbers = [line for line in body.split(b"\n") if line.startswith(b": check ")]
    assert numbers == [b": check %d" % (number + 1) for number in range(COMMENTS)]


def read_to(client: Client, end: bytes) -> bytes:
    body = b""
    while end not in body:
        piece = client.read_some()
        assert piece, body
        body += piece
    return body


@pytest.mark.parametrize(
    ("version", "headers", "expected"),
    [
        (11, {}, {"protocol": "HTTP/1.1", "connection": "", "last-event-id": "no"}),
        (10, {"Connection": "close"}, {"protocol": "HTTP/1.0", "connection": "close", "last-event-id": "no"}),
        (11, {"Connection": "Upgrade, Keep-Alive"}, {"protocol": "HTTP/1.1", "connection": "keep-alive"}),
        (11, {"Last-Event-ID": "x"}, {"last-event-id": "yes"}),
    ],
    ids=["HTTP/1.1", "HTTP/1.0", "kept", "reconnect"],
)
def test_probe_header_reports_the_request(
    version: int, headers: dict[str, str], expected: dict[str, str], channels: Server
) -> None:
    asked = {"Sse-Check": NONCE, **headers}
    with connected(channels, "/events?channel=probed", headers=asked, version=version) as client:
        header = values_of(client.response.headers["Sse-Check"])
    assert expected.items() <= header.items()
    assert (header["heartbeat"], header["comments"]) == ("15", "0")


@pytest.mark.parametrize("asked", ["", "short", "x" * 65, f"{NONCE}; other", "<script>", f"{NONCE}\t"])
def test_invalid_nonce_gets_no_probe_header(asked: str, scheduler: ManualScheduler) -> None:
    app, _ = make_app(scheduler)
    with open_stream(app.test_client(), "/connect", headers={"Sse-Check": asked}) as stream:
        assert "Sse-Check" not in stream.response.headers


def test_only_streams_answer_probes(scheduler: ManualScheduler) -> None:
    app, _ = make_app(scheduler)
    answer = app.test_client().get("/page", headers=COMMENTS_WANTED)
    assert answer.text == "True"
    assert "Sse-Check" not in answer.headers


def test_number_of_concurrent_probes_is_limited(scheduler: ManualScheduler) -> None:
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


def test_head_request_gets_no_probe_comments(scheduler: ManualScheduler) -> None:
    app, _ = make_app(scheduler)
    answer = app.test_client().head("/connect", headers=COMMENTS_WANTED)
    assert values_of(answer.headers["Sse-Check"])["comments"] == "0"


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


def test_low_byte_limit_omits_probe_padding(scheduler: ManualScheduler) -> None:
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
