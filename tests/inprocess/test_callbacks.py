"""Callbacks of streams: they run once, however the stream ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Response

from flask_sse_emitters import SseEmitter
from tests.support.board import Board, journal_of
from tests.support.waiting import until


@pytest.mark.parametrize(
    "way", ["completed", "HEAD", "after_request fails", "left before the first byte", "no view returns it"]
)
def test_callback_runs_once_however_the_stream_ends(way: str) -> None:
    """Also one that is registered after the end."""
    board = Board(SSE_ATTACH_SECONDS=0.05)
    journals: list[list[str]] = []
    made: list[SseEmitter] = []

    @board.app.get("/")
    def view() -> Any:
        made.append(SseEmitter())
        journals.append(journal_of(made[0]))
        return "another answer" if "view" in way else made[0]

    @board.app.after_request
    def after(response: Response) -> Response:
        if "fails" in way:
            raise RuntimeError(way)
        return response

    if way == "left before the first byte":  # the test client reads it
        with board.app.test_request_context():
            board.app.make_response(view()).close()
    else:
        response = board.client.open("/", method="HEAD" if way == "HEAD" else "GET")
        if way == "completed":
            made[0].complete()
            assert b"data" not in response.data
        response.close()
    until(lambda: "completion" in journals[0], "the callbacks")
    journals.append(journal_of(made[0]))  # after the end
    until(lambda: "completion" in journals[1], "the late callbacks")
    made[0].complete()
    done = threading.Event()
    made[0].on_completion(done.set)
    until(done.is_set, "what comes after them")
    assert sorted(journals[1]) == sorted(journals[0])
    assert [entry.partition(":")[0] for entry in journals[0]] == (
        ["completion"] if way == "completed" else ["error", "completion"]
    )


def test_callback_that_is_async_is_rejected() -> None:
    async def call(*_: object) -> None: ...

    emitter = SseEmitter()
    adders: list[Callable[[Any], object]] = [emitter.on_completion, emitter.on_timeout, emitter.on_error]
    for add in adders:
        with pytest.raises(TypeError, match="not an async one"):
            add(call)
    emitter.complete()
