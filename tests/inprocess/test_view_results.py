"""What a view may return: an emitter, bare or with status and headers, and what is an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Response, make_response

from flask_sse_emitters import (
    SSE,
    CloseReason,
    Event,
    SseEmitter,
    SseEmitters,
    SseError,
    UnsupportedWorker,
)
from flask_sse_emitters.testing import decode
from tests.support.board import Board, completed


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


def test_view_result_of_another_type_is_unchanged(board: Board) -> None:
    board.app.add_url_rule("/", view_func=lambda: ({"a": 1}, 201, {"X-Foo": "bar"}))
    response = board.client.get("/")
    assert (response.json, response.status_code, response.headers["X-Foo"]) == ({"a": 1}, 201, "bar")


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
    ("sign", "advice"), [("gunicorn.socket", "--worker-class gevent"), ("werkzeug.socket", "threaded=True")]
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
