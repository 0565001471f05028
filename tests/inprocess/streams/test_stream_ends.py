"""How a stream ends: its close reason, its callbacks in their order, and what the client sees."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Response, abort

from flask_sse_emitters import CloseReason, CopyOnWriteList, Event, SseEmitter, SseEmitters
from flask_sse_emitters.testing import decode
from tests.support.board import Board, journal_of, levels, texts
from tests.support.waiting import until


def shut_down(board: Board, emitter: SseEmitter, _response: Any) -> None:
    """Shut down on another thread, which waits until the client has read to the end."""
    threading.Thread(target=board.sse.shutdown).start()
    until(lambda: not emitter.is_open, "its end")


End = Callable[[Board, SseEmitter, Any], object]

ENDS: list[tuple[str, End, CloseReason, list[str]]] = [
    ("complete", lambda _board, emitter, _: emitter.complete(), CloseReason.COMPLETED, ["completion"]),
    ("timeout", lambda *_: None, CloseReason.TIMEOUT, ["timeout", "completion"]),
    (
        "complete with error",
        lambda _board, emitter, _: emitter.complete_with_error(ValueError("mine")),
        CloseReason.ERROR,
        ["error: mine", "completion"],
    ),
    ("shutdown", shut_down, CloseReason.SHUTDOWN, ["completion"]),
]


@pytest.mark.parametrize(("name", "end", "reason", "calls"), ENDS, ids=[name for name, *_ in ENDS])
def test_stream_end_is_clean_after_pending_events(
    name: str, end: End, reason: CloseReason, calls: list[str], board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    """It is also quiet: one line, at DEBUG."""
    emitter = SseEmitter(timeout=0.2 if name == "timeout" else 0)
    journal = journal_of(emitter)
    board.app.add_url_rule("/", view_func=lambda: emitter)
    with board.get("/") as response:
        pieces = response.iter_encoded()
        next(pieces)
        emitter.send("pending")
        with caplog.at_level(logging.DEBUG, "flask_sse_emitters.emitter"):
            end(board, emitter, response)
            rest = b"".join(pieces)
        assert (response.status_code, texts(decode(rest))) == (200, ["pending"])
    assert emitter.close_reason is reason
    until(lambda: len(journal) == len(calls), "the callbacks")
    assert journal == calls
    closing = re.search(rb"retry: (\d+)\n\n$", rest)
    assert (closing is not None) == (reason is CloseReason.SHUTDOWN)
    if closing is not None:
        assert 1500 <= int(closing[1]) <= 6000, "a random delay of its own"
    assert [line for line in levels(caplog) if line not in ("DEBUG", "INFO")] == []
    assert caplog.text.count("Traceback") == 0


def test_overflow_cuts_the_connection(board: Board) -> None:
    """So that no client takes what it has for everything; it resumes by id."""
    emitter = SseEmitter(max_pending=1)
    journal = journal_of(emitter)
    board.app.add_url_rule("/", view_func=lambda: emitter)
    pieces = board.get("/").iter_encoded()
    next(pieces)
    assert [emitter.try_send(number) for number in range(2)] == [True, False]
    assert emitter.close_reason is CloseReason.OVERFLOW
    with pytest.raises(BrokenPipeError, match="more events are pending"):
        next(pieces)
    until(lambda: len(journal) == 2, "the callbacks")
    assert [entry.partition(":")[0] for entry in journal] == ["error", "completion"]


@pytest.mark.parametrize("is_head", [True, False], ids=["HEAD", "GET"])
def test_disconnect_before_the_first_byte_ends_the_stream(is_head: bool, board: Board) -> None:
    journals: list[list[str]] = []

    @board.app.get("/")
    def view() -> Response:
        emitter = board.sse.channel("a").subscribe()
        journals.append(journal_of(emitter))
        return emitter.response()

    if is_head:
        with board.client.head("/") as response:
            assert (response.status_code, response.content_type, response.data) == (200, "text/event-stream", b"")
    else:  # the test client reads the first bytes before it returns
        with board.app.test_request_context():
            view().close()
    assert (board.sse.stats()["closed"], board.clients) == ({"disconnected": 1}, 0)
    assert board.sse.channel("a").subscribers() == 0
    [journal] = journals
    until(lambda: len(journal) == 2, "the callbacks")
    assert [entry.partition(":")[0] for entry in journal] == ["error", "completion"]
    assert "before its first byte" in journal[0]


@pytest.mark.parametrize("fails", ["the view", "after_request"])
def test_failed_request_ends_its_emitter_and_leaves_the_list(fails: str, board: Board, emitters: SseEmitters) -> None:
    journals: list[list[str]] = []
    made: list[SseEmitter] = []

    @board.app.get("/")
    def view() -> SseEmitter:
        made.append(emitters.add(SseEmitter()))
        journals.append(journal_of(made[0]))
        if fails == "the view":
            raise RuntimeError(fails)
        return made[0]

    @board.app.after_request
    def after(response: Response) -> Response:
        if fails == "after_request":
            raise RuntimeError(fails)
        return response

    assert board.get("/").status_code == 500
    assert (made[0].close_reason, len(emitters)) == (CloseReason.ERROR, 0)
    until(lambda: journals == [[f"error: {fails}", "completion"]], "the callbacks")


@pytest.mark.parametrize("has_response", [False, True])
def test_emitter_that_no_view_returns_ends_at_the_attach_deadline(has_response: bool, emitters: SseEmitters) -> None:
    board = Board(SSE_ATTACH_SECONDS=0.05)
    made: list[SseEmitter] = []

    @board.app.get("/")
    def view() -> Any:
        made.append(emitters.add(SseEmitter()))
        if has_response:
            made[0].response()  # which is dropped
        abort(409)

    assert board.get("/").status_code == 409
    until(lambda: made[0].close_reason is CloseReason.ERROR, "the attach deadline")
    assert "SSE_ATTACH_SECONDS=0.05" in str(made[0].error)
    until(lambda: board.clients == 0, "it to be counted out")
    assert (len(emitters), board.sse.stats()["closed"]) == (0, {"error": 1} if has_response else {})


class SpringEmitters:
    """The list that one writes for Spring, line by line: docs/from-spring.rst."""

    def __init__(self) -> None:
        self.emitters: CopyOnWriteList[SseEmitter] = CopyOnWriteList()

    def add(self, emitter: SseEmitter) -> SseEmitter:
        self.emitters.add(emitter)
        emitter.on_completion(lambda: self.emitters.remove(emitter))
        emitter.on_timeout(emitter.complete)
        return emitter


def test_spring_controller_returns_emitter_that_removes_itself_at_timeout(board: Board) -> None:
    listed = SpringEmitters()

    @board.app.get("/connect")
    def connect() -> SseEmitter:
        emitter = listed.add(SseEmitter(0.2))
        emitter.send(SseEmitter.event().name("connect").data("connected!"))
        return emitter

    assert decode(board.get("/connect").data) == [Event("connected!", event="connect")]
    until(lambda: len(listed.emitters) == 0, "the emitter to be removed")


def test_callback_that_is_async_is_rejected() -> None:
    async def call(*_: object) -> None: ...

    emitter = SseEmitter()
    adders: list[Callable[[Any], object]] = [emitter.on_completion, emitter.on_timeout, emitter.on_error]
    for add in adders:
        with pytest.raises(TypeError, match="not an async one"):
            add(call)
    emitter.complete()
