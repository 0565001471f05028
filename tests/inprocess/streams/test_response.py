"""What a view may return, and the response of its stream: headers, first bytes, body, and what the app does to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Response, make_response, request, stream_with_context
from flask.typing import ResponseReturnValue

from flask_sse_emitters import (
    SSE,
    CloseReason,
    Event,
    SseEmitter,
    SseEmitters,
    SseError,
    UnsupportedWorker,
)
from flask_sse_emitters.testing import decode, open_stream, read_events
from tests.support.board import Board, completed, texts


def emitter_with_an_event() -> SseEmitter:
    emitter = SseEmitter()
    emitter.send("x")
    return completed(emitter)


@pytest.mark.parametrize(
    ("view", "status", "headers"),
    [
        (emitter_with_an_event, 200, {}),
        (lambda: (emitter_with_an_event(), 202), 202, {}),
        (lambda: (emitter_with_an_event(), {"X-Foo": "bar"}), 200, {"X-Foo": "bar"}),
        (lambda: (emitter_with_an_event(), 202, {"Cache-Control": "no-store"}), 202, {"Cache-Control": "no-store"}),
        (lambda: emitter_with_an_event().response(202, {"X-Foo": "bar"}), 202, {"X-Foo": "bar"}),
        (lambda: make_response(emitter_with_an_event()), 200, {}),
        (lambda: make_response(emitter_with_an_event(), 202), 202, {}),
    ],
    ids=["bare", "with a status", "with headers", "with both", "response()", "make_response", "make_response of two"],
)
def test_view_result_can_be_an_emitter_bare_or_in_a_tuple(
    view: Callable[[], Any], status: int, headers: dict[str, str], board: Board
) -> None:
    board.app.add_url_rule("/", view_func=lambda: view())
    response = board.get("/")
    assert (response.status_code, response.content_type) == (status, "text/event-stream")
    assert set(headers.items()) <= set(response.headers)
    assert decode(response.data) == [Event("x")]


def test_view_result_emitter_of_an_earlier_request_is_rejected(board: Board) -> None:
    emitter = SseEmitter()
    board.app.add_url_rule("/", view_func=lambda: emitter)
    board.app.testing = True
    with board.client.get("/"):
        with pytest.raises(SseError, match="make an emitter for each request"):
            board.client.get("/")
        assert emitter.is_open
    assert emitter.close_reason is CloseReason.DISCONNECTED


@pytest.mark.parametrize(
    ("sign", "advice"), [("uwsgi.version", "start uWSGI with --threads"), ("werkzeug.socket", "threaded=True")]
)
def test_view_result_on_a_single_threaded_server_is_an_error(sign: str, advice: str, board: Board) -> None:
    board.app.testing = True
    board.app.add_url_rule("/", view_func=SseEmitter)
    with pytest.raises(UnsupportedWorker, match=advice):
        board.client.get("/", environ_overrides={sign: object(), "wsgi.multithread": False})


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (lambda: SSE().channel("news"), "a view returns sse.channel('news').subscribe()"),
        (SseEmitters, "a view returns the emitter that it has added to the list"),
        (lambda: Response(SseEmitter()), "return it from the view as it is, or emitter.response()"),  # type: ignore[arg-type]
    ],
)
def test_view_result_of_a_wrong_type_is_an_error_with_advice(
    board: Board, result: Callable[[], Any], expected: str
) -> None:
    board.app.testing = True
    board.app.add_url_rule("/", view_func=lambda: result())
    with pytest.raises(TypeError, match=re.escape(expected)):
        board.client.get("/")


def test_response_headers_are_those_of_an_event_stream(board: Board) -> None:
    board.app.add_url_rule("/", view_func=lambda: completed(SseEmitter()))
    response = board.get("/")
    assert response.status_code == 200
    assert dict(response.headers) == {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
    }


def test_response_first_bytes_are_sent_at_once(board: Board) -> None:
    """A comment and ``retry:``, before the view has sent anything, so that proxies and ``onopen`` need not wait."""
    board.app.config["SSE_RETRY"] = 1
    board.app.add_url_rule("/", view_func=SseEmitter)
    with board.get("/") as response:
        first = next(response.iter_encoded())
    assert first.startswith(b":")
    assert b"\nretry: 3000\n" in first, "the config is read once, by init_app"
    assert decode(first) == []


@pytest.mark.parametrize("parameter", ["padding", "evs_preamble"])
def test_response_padding_for_polyfills_is_two_kilobytes(parameter: str, board: Board) -> None:
    board.app.add_url_rule("/", view_func=lambda: completed(SseEmitter()))
    assert board.get(f"/?{parameter}=true").data.startswith(b":" + b" " * 2048 + b"\n")
    assert len(board.get("/").data) < 100


def test_response_delivers_what_was_sent_before_the_view_returned(board: Board) -> None:
    """In order, within the bounds of what may be pending."""

    @board.app.get("/")
    def view() -> ResponseReturnValue:
        emitter = SseEmitter(max_pending=3, overflow="drop_oldest")
        for number in range(5):
            emitter.send(number)
        return completed(emitter)

    assert texts(decode(board.get("/").data)) == ["2", "3", "4"]


def test_response_has_the_apps_response_class(board: Board) -> None:
    class Special(Response):
        pass

    board.app.response_class = Special  # set after init_app
    with board.app.test_request_context():
        with board.app.make_response(completed(SseEmitter())) as response:
            assert isinstance(response, Special)


def test_response_call_on_close_is_called_once_at_the_end(board: Board) -> None:
    closed: list[str] = []

    @board.app.get("/")
    def view() -> ResponseReturnValue:
        response = SseEmitter().response()
        response.call_on_close(lambda: closed.append(request.method if request else "no request"))
        return response

    response = board.get("/")
    next(response.iter_encoded())
    assert closed == []
    response.close()
    assert closed == ["no request"], "the stream keeps no request"
    board.client.head("/").close()
    assert len(closed) == 2


@pytest.mark.parametrize("way", ["a generator", "stream_with_context", "no passthrough"])
def test_response_body_that_the_app_wraps_is_delivered_and_ends(way: str, board: Board) -> None:
    board.app.add_url_rule("/", view_func=SseEmitter)

    def passed_on(body: Iterable[bytes]) -> Iterator[bytes]:
        yield from body

    @board.app.after_request
    def wrap(response: Response) -> Response:
        if way == "a generator":
            response.response = passed_on(response.response)  # type: ignore[arg-type]
        elif way == "stream_with_context":
            response.response = stream_with_context(response.response)  # type: ignore[call-overload]
        else:
            response.direct_passthrough = False
        return response

    response = board.get("/")
    [emitter] = board.emitters
    emitter.send("x")
    assert read_events(response, 1) == [Event("x")]
    response.close()
    assert emitter.close_reason is CloseReason.DISCONNECTED


def test_request_ends_before_its_stream(board: Board) -> None:
    """And with it what is released at its end, such as a database session."""
    order: list[str] = []
    board.app.teardown_appcontext(lambda _: order.append("released"))
    board.app.add_url_rule("/", view_func=SseEmitter)
    with open_stream(board.client, "/") as stream:
        board.emitters[0].send("x")
        assert stream.ready() == [Event("x")]
        assert order == ["released"]
