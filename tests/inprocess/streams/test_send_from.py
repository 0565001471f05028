"""Sending what an iterable gives, at the pace of the client, and what becomes of the iterable."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import current_app, g, has_request_context, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import QueuePool

from flask_sse_emitters import CloseReason, Event, SseEmitter, SseError
from flask_sse_emitters.signals import emitter_closed
from flask_sse_emitters.testing import decode
from tests.inprocess.streams.bodies import body_of, read
from tests.support.board import Board, journal_of, texts
from tests.support.waiting import until

FINAL = b"event: ~end\nid: ~end\ndata:\n\n"


def test_send_from_sends_all_items_and_done_and_the_end_for_good(board: Board) -> None:
    items = ["plain", {"n": 1}, Event("x", event="tick", id=7), SseEmitter.event().data("built")]
    emitter = SseEmitter()
    journal = journal_of(emitter)
    body = body_of(board, emitter.send_from(items, done="[DONE]"))
    assert body == (
        b": stream open\nretry: 3000\n\n"
        b'data: plain\n\ndata: {"n": 1}\n\nid: 7\nevent: tick\ndata: x\n\ndata: built\n\ndata: [DONE]\n\n' + FINAL
    )
    assert emitter.close_reason is CloseReason.COMPLETED
    until(lambda: journal == ["completion"], "the callback")


def test_send_from_asks_for_the_next_item_only_while_there_is_room() -> None:
    app = Board(SSE_AHEAD=3)
    asked: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    app.app.add_url_rule("/", view_func=lambda: SseEmitter().send_from(items()))
    with app.get("/") as response:
        pieces = response.iter_encoded()
        begin = next(pieces)
        until(lambda: len(asked) == len(decode(begin)) + 3, "as many as it may be ahead")
        body = begin + b"".join(pieces)
    assert texts(decode(body)) == [*map(str, range(100)), ""]


def test_send_from_is_ahead_by_few_bytes(board: Board) -> None:
    asked: list[int] = []

    def items() -> Iterator[str]:
        for number in range(10):
            asked.append(number)
            yield "x" * 40_000

    board.app.add_url_rule("/", view_func=lambda: SseEmitter().send_from(items()))
    with board.get("/") as response:
        pieces = response.iter_encoded()
        begin = next(pieces)
        until(lambda: len(asked) == len(decode(begin)) + 2, "as many as it may be ahead")
        assert len(decode(begin + b"".join(pieces))) == 11


def test_send_from_runs_in_copies_of_the_app_and_request_contexts(board: Board) -> None:
    gone: list[tuple[threading.Thread, str]] = []
    board.app.teardown_request(lambda _: gone.append((threading.current_thread(), "request")))
    board.app.teardown_appcontext(lambda _: gone.append((threading.current_thread(), "app")))
    pulling: list[threading.Thread] = []

    def items() -> Iterator[object]:
        g.own = "mine"
        pulling.append(threading.current_thread())
        yield [request.args["q"], current_app.name]
        yield g.own

    board.app.add_url_rule("/", view_func=lambda: SseEmitter().send_from(items()))
    # On a thread of its own a receiver has the app's context, too.
    with emitter_closed.connected_to(lambda *_, **__: None, board.app):
        body = board.get("/?q=asked").data
        assert texts(decode(body))[:2] == ['["asked", "tests.support.board"]', "mine"]
        until(lambda: len(gone) == 5, "the teardown of both, of their copies, and of the receiver's context")
    here = threading.current_thread()
    assert pulling != [here]
    for thread in (here, *pulling):
        assert [what for where, what in gone if where is thread] == ["request", "app"]


def test_send_from_outside_a_request_has_the_context_of_the_app(board: Board) -> None:
    def items() -> Iterator[object]:
        yield [current_app.name, has_request_context()]

    emitter = SseEmitter().send_from(items())
    assert texts(decode(body_of(board, emitter)))[0] == '["tests.support.board", false]'


def test_send_from_that_raises_tells_the_client_and_breaks_the_connection(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    def items() -> Iterator[str]:
        yield "half"
        raise KeyError("upstream")

    emitter = SseEmitter()
    emitter.send_from(items(), done="[DONE]", on_error=lambda error: Event({"error": str(error)}, event="failed"))
    errors: list[BaseException] = []
    emitter.on_error(errors.append)
    board.app.add_url_rule("/", view_func=lambda: emitter)
    got, broke = read(board)
    assert broke
    assert [(event.event, event.data) for event in decode(got)] == [
        (None, "half"),
        ("failed", '{"error": "\'upstream\'"}'),
    ]
    assert emitter.close_reason is CloseReason.ERROR
    until(lambda: [type(error) for error in errors] == [KeyError], "the callback")
    assert "an error in the iterable" in caplog.text
    assert "Traceback" in caplog.text


def test_send_from_closes_the_iterable_of_a_lost_client_on_its_thread(board: Board) -> None:
    threads: list[threading.Thread] = []

    def items() -> Iterator[int]:
        threads.append(threading.current_thread())
        try:
            yield from range(1_000_000)
        finally:
            threads.append(threading.current_thread())

    class Source:
        closed = 0

        def __iter__(self) -> Iterator[int]:
            return items()

        def close(self) -> None:
            self.closed += 1

    source, emitter = Source(), SseEmitter()
    board.app.add_url_rule("/", view_func=lambda: emitter.send_from(source))
    with board.get("/") as response:
        next(response.iter_encoded())
    until(lambda: len(threads) == 2, "the iterable to be closed")
    assert threads[0] is threads[1]
    assert emitter.close_reason is CloseReason.DISCONNECTED
    until(lambda: source.closed == 1, "the source to be closed, too")


def test_send_from_is_not_pulled_for_head_nor_after_the_end_for_good(board: Board) -> None:
    pulled, closed = [], []

    class Items:
        def __iter__(self) -> Iterator[int]:
            pulled.append(1)
            return iter([1])

        def close(self) -> None:
            closed.append(1)

    board.app.add_url_rule("/", view_func=lambda: SseEmitter().send_from(Items()))
    with board.client.head("/") as head:
        assert head.status_code == 200
    until(lambda: len(closed) == 1, "the items to be closed")
    response = board.get("/", **{"Last-Event-ID": "~end"})
    assert (response.status_code, response.data, "Content-Type" in response.headers) == (204, b"", False)
    until(lambda: len(closed) == 2, "the items to be closed")
    assert pulled == []
    assert board.clients == 0


def test_send_from_without_a_thread_breaks_off_and_closes_the_iterable(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    """The iterable is closed in its contexts, as soon as the system has a thread again."""
    closed: list[str] = []

    class Items:
        def __iter__(self) -> Iterator[int]:
            return iter([1])

        def close(self) -> None:
            closed.append(f"{request.path} of {current_app.name}")

    emitter = SseEmitter()
    errors: list[BaseException] = []
    emitter.on_error(errors.append)
    board.app.add_url_rule("/", view_func=lambda: emitter.send_from(Items(), done="[DONE]"))
    with no_thread_is_to_be_had():
        got, broke = read(board)
        assert broke
        assert b"data" not in got
        assert closed == []
    until(lambda: errors and closed == ["/ of tests.support.board"], "the callback, and the iterable to be closed")
    assert "start new thread" in str(errors[0])
    assert "cannot start a thread to pull an iterable" in caplog.text


@contextmanager
def no_thread_is_to_be_had() -> Iterator[None]:
    """Have the system refuse each thread that is started meanwhile: no process has room for such a stack."""
    threading.stack_size(2**47 - 4096)
    try:
        yield
    finally:
        threading.stack_size(0)


def test_send_from_takes_no_items_that_a_for_loop_cannot_pull() -> None:
    async def tokens() -> Any:
        yield 1

    for items in ("a word", b"bytes", Event("one"), 7, tokens()):
        with pytest.raises(TypeError, match="send_from"):
            SseEmitter().send_from(items)  # type: ignore[arg-type]
    emitter = SseEmitter().send_from([])
    with pytest.raises(SseError, match="before"):
        emitter.send_from([])


def test_send_from_holds_a_database_connection_until_it_lets_it_go(board: Board, tmp_path: Path) -> None:
    """From its first query: until it removes the session, and at the latest until it has ended."""
    board.app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'database'}"
    board.app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": QueuePool}
    db = SQLAlchemy(board.app)
    out: list[int] = []

    def checked_out() -> int:
        pool = db.engine.pool
        assert isinstance(pool, QueuePool)
        return pool.checkedout()

    def items() -> Iterator[int]:
        out.append(checked_out())
        yield db.session.execute(db.text("SELECT 1")).scalar_one()
        out.append(checked_out())
        db.session.remove()
        out.append(checked_out())
        yield db.session.execute(db.text("SELECT 2")).scalar_one()
        out.append(checked_out())

    board.app.add_url_rule("/", view_func=lambda: SseEmitter(bare=True).send_from(items()))
    assert texts(decode(board.get("/").data)) == ["1", "2"]
    assert out == [0, 1, 0, 1]
    with board.app.app_context():
        until(lambda: checked_out() == 0, "the connection to be back")
        db.engine.dispose()
