"""Callbacks of streams: how often, in which order, where, and with which context they run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Response, current_app

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


def test_callbacks_of_one_kind_run_in_the_order_of_registration() -> None:
    emitter, calls = SseEmitter(timeout=0.05), list[str]()
    for name in ("c1", "c2"):
        emitter.on_completion(lambda name=name: calls.append(name))
    for name in ("t1", "t2"):
        emitter.on_timeout(lambda name=name: calls.append(f"{name} {emitter.is_open}"))
    until(lambda: len(calls) == 4, "the callbacks")
    assert calls == ["t1 False", "t2 False", "c1", "c2"]


def test_callback_runs_on_another_thread_with_the_apps_context(board: Board) -> None:
    """It may use the emitter and block: no lock is held."""
    calls: list[tuple[threading.Thread, str, list[str]]] = []
    popped: list[str] = []
    board.app.teardown_appcontext(lambda _: popped.append("popped"))
    with board.app.app_context():
        emitter = SseEmitter()

    @emitter.on_completion
    def note() -> None:
        assert not emitter.try_send("late")
        emitter.complete()
        calls.append((threading.current_thread(), current_app.name, popped.copy()))

    popped.clear()
    emitter.complete()
    until(lambda: popped, "the context to be popped")
    assert calls[0][1:] == (board.app.name, [])
    assert calls[0][0] is not threading.current_thread()


def test_callback_that_raises_is_logged_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    emitter, done = SseEmitter(), threading.Event()

    @emitter.on_completion
    def fail() -> None:
        raise ValueError("mine")

    emitter.on_completion(done.set)
    emitter.complete()
    until(done.is_set, "the next one")
    assert "ValueError: mine" in caplog.text


def test_callback_that_is_async_is_rejected() -> None:
    async def call(*_: object) -> None: ...

    emitter = SseEmitter()
    adders: list[Callable[[Any], object]] = [emitter.on_completion, emitter.on_timeout, emitter.on_error]
    for add in adders:
        with pytest.raises(TypeError, match="not an async one"):
            add(call)
    emitter.complete()
