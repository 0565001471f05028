"""The helpers for the tests of users' apps: ``read_events``, ``open_stream`` and ``published``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.typing import ResponseReturnValue

from flask_sse_emitters import Event, SseEmitter, SseEmitters
from flask_sse_emitters.testing import open_stream, published, read_events
from tests.support.board import Board, completed, texts
from tests.support.waiting import PATIENCE


def test_published_records_events_without_any_stream(board: Board) -> None:
    @board.app.post("/orders")
    def create() -> Any:
        return {"event": board.sse.publish("orders", {"id": 7}, event="created")}

    with published(board.sse, "orders", "other", "~ann") as events:
        answer = board.client.post("/orders")
        board.publish("unrecorded", 1)
        board.publish("other", 2)
        for user in ("ann", "bob"):
            board.sse.publish_to(user, user)
    board.publish("orders", 3)
    assert events[0] == Event('{"id": 7}', event="created", id=answer.json["event"])  # type: ignore[index]
    assert texts(events) == ['{"id": 7}', "2", "ann"]
    with pytest.raises(TypeError, match="the names of one channel or more"), published(board.sse):
        pass


def test_open_stream_error_shows_the_answer_that_is_no_stream(board: Board) -> None:
    with pytest.raises(AssertionError, match="GET /events did not answer with a stream: 400 BAD REQUEST, text/plain"):
        with open_stream(board.client, "/events"):
            pass


def test_open_stream_is_ready_at_once_and_ends_with_the_stream(board: Board, emitters: SseEmitters) -> None:
    board.app.add_url_rule("/mine", view_func=lambda: emitters.add(SseEmitter()))
    with open_stream(board.client, "/mine") as stream:
        assert stream.ready() == stream.ready() == []
        emitters.send("a")
        with ThreadPoolExecutor() as pool:
            pool.submit(emitters.send, "b").result(PATIENCE)
        assert texts(stream.ready()) == ["a", "b"]
        emitters.send("c")
        emitters.complete()
        assert texts(stream.ready()) == ["c"]
        assert stream.ready() == []
        assert stream.response.status_code == 200


def test_read_events_goes_on_where_it_stopped(board: Board) -> None:
    @board.app.get("/")
    def view() -> ResponseReturnValue:
        emitter = SseEmitter()
        for number in range(5):
            emitter.send(number)
        return completed(emitter)

    response = board.client.get("/")
    assert [event.data for event in read_events(response, 2)] == ["0", "1"]
    assert read_events(response, 0) == []
    assert [event.data for event in read_events(response, 9)] == ["2", "3", "4"]
    assert read_events([Event("a").encode() + Event("b").encode()], 5) == [Event("a"), Event("b")], "of any bytes"
