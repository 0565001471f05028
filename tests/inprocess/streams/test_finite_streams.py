"""Waiting for room, ends for good, connections that break, and bare streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, request

from flask_sse_emitters import CloseReason, EmitterClosed, Event, InvalidEvent, SseEmitter, SseEmitters
from flask_sse_emitters.testing import decode
from tests.inprocess.streams.bodies import body_of, read
from tests.support.board import Board, journal_of, texts
from tests.support.waiting import PATIENCE, until

FINAL = b"event: ~end\nid: ~end\ndata:\n\n"


def test_send_with_fields_sends_what_an_event_with_them_would(board: Board) -> None:
    emitter, listed, emitters = SseEmitter(), SseEmitter(), SseEmitters()
    emitters.add(listed)
    emitter.send({"n": 1}, event="tick", id=4, retry=9)
    assert emitter.try_send("x", event="tick")
    with pytest.raises(InvalidEvent, match="as it is"):
        emitter.send(Event("x"), event="tick")
    assert emitters.send("all", event="tick", id="a") == 1
    emitter.complete()
    listed.complete()
    assert body_of(board, emitter).endswith(b'id: 4\nevent: tick\nretry: 9\ndata: {"n": 1}\n\nevent: tick\ndata: x\n\n')
    assert body_of(board, listed).endswith(b"id: a\nevent: tick\ndata: all\n\n")


def test_send_that_waits_is_sent_as_the_client_takes_and_never_overflows(board: Board) -> None:
    emitter = SseEmitter(max_pending=2)

    def send_all() -> None:
        for number in range(500):
            emitter.send(number, wait=PATIENCE)
        emitter.complete()

    board.app.add_url_rule("/", view_func=lambda: emitter)
    with board.get("/") as response:
        sender = threading.Thread(target=send_all)
        sender.start()
        assert texts(decode(response.data)) == [*map(str, range(500))]
        sender.join()
    assert emitter.close_reason is CloseReason.COMPLETED


def test_send_that_waits_in_vain_raises_and_leaves_the_emitter_as_it_was(board: Board) -> None:
    emitter = SseEmitter(max_pending=1)
    emitter.send("first")
    with pytest.raises(TimeoutError, match="not sent"):
        emitter.send("second", wait=0.01)
    assert (emitter.is_open, emitter.pending) == (True, 1)
    emitter.complete()
    assert texts(decode(body_of(board, emitter))) == ["first"]


def test_send_that_waits_ends_with_the_stream() -> None:
    emitter, raised = SseEmitter(max_pending=1), []
    emitter.send("first")

    def send() -> None:
        with pytest.raises(EmitterClosed) as caught:
            emitter.send("second", wait=PATIENCE)
        raised.append(caught.value.reason)

    sender = threading.Thread(target=send)
    sender.start()
    emitter.complete_with_error(ValueError())
    sender.join()
    assert raised == [CloseReason.ERROR]
    with pytest.raises(ValueError, match="wait must be"):
        emitter.send("x", wait="soon")  # type: ignore[arg-type]


def test_overflow_names_what_would_have_waited_and_blames_nobody() -> None:
    emitter = SseEmitter(max_pending=1)
    emitter.send("first")
    with pytest.raises(EmitterClosed) as caught:
        emitter.send("second")
    assert "wait=" in str(caught.value.error)
    assert "client" not in str(caught.value.error)


def test_complete_for_good_tells_the_client(board: Board) -> None:
    emitter = SseEmitter()
    emitter.send("x")
    emitter.complete(final=True)
    assert body_of(board, emitter).endswith(b"data: x\n\n" + FINAL)


def test_abort_breaks_the_connection_after_what_is_pending(board: Board) -> None:
    emitter = SseEmitter()
    journal = journal_of(emitter)
    board.app.add_url_rule("/", view_func=lambda: emitter)
    pieces = board.get("/").iter_encoded()
    next(pieces)
    emitter.send("pending")
    emitter.abort(ValueError("upstream"))
    assert next(pieces) == b"data: pending\n\n"
    with pytest.raises(BrokenPipeError):
        next(pieces)
    assert emitter.close_reason is CloseReason.ERROR
    until(lambda: journal == ["error: upstream", "completion"], "the callbacks")


def test_bare_stream_has_nothing_but_events_without_ids_and_comments(board: Board) -> None:
    emitter, listed, emitters = SseEmitter(bare=True), SseEmitter(bare=True), SseEmitters()
    emitter.send("x", id=1, event="tick")
    emitter.complete(final=True)
    emitters.add(listed)
    emitters.send(Event("a\nid: 2", id=2, comment="id: 3"))
    listed.complete()
    assert body_of(board, emitter) == b": stream open\n\nevent: tick\ndata: x\n\n"
    assert body_of(board, listed) == b": stream open\n\n: id: 3\ndata: a\ndata: id: 2\n\n"


def test_bare_stream_that_is_too_many_breaks() -> None:
    """Its client would take a clean end for everything."""
    board = Board(SSE_MAX_CLIENTS=1)
    board.app.add_url_rule("/", view_func=lambda: SseEmitter(bare=True))
    with board.get("/") as first:
        next(first.iter_encoded())
        pieces = board.get("/").iter_encoded()
        assert next(pieces) == b": stream open\n\n"
        with pytest.raises(BrokenPipeError):
            next(pieces)


@pytest.mark.parametrize("where", ["app", "emitter"])
def test_retry_of_none_writes_none_anywhere(where: str) -> None:
    board = Board(SSE_RETRY=None) if where == "app" else Board()
    emitter = SseEmitter() if where == "app" else SseEmitter(retry=None)
    board.app.add_url_rule("/", view_func=lambda: emitter)
    with board.get("/") as response:
        pieces = response.iter_encoded()
        begin = next(pieces)
        threading.Thread(target=board.sse.shutdown).start()
        assert begin + b"".join(pieces) == b": stream open\n\n"


END_FOR_NOW: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {}, False),
    ({"SSE_END": "cut"}, {}, True),
    ({"SSE_END": "cut"}, {"end": "clean"}, False),
    ({}, {"end": "cut"}, True),
    ({}, {"bare": True}, True),
    ({}, {"bare": True, "end": "clean"}, False),
]


@pytest.mark.parametrize(("config", "options", "breaks"), END_FOR_NOW)
def test_end_of_a_lifetime_is_clean_or_breaks_as_asked_for(
    config: dict[str, Any], options: dict[str, Any], breaks: bool
) -> None:
    """A client that may take a part for the whole never sees a clean end of a part."""
    board = Board(**config)
    emitter = SseEmitter(timeout=0.05, **options)
    emitter.send("pending")
    board.app.add_url_rule("/", view_func=lambda: emitter)
    got, broke = read(board)
    assert (broke, texts(decode(got)), emitter.close_reason) == (breaks, ["pending"], CloseReason.TIMEOUT)


def test_emitter_options_that_are_invalid_are_named() -> None:
    for options, named in (
        ({"bare": 1}, "bare must be True or False"),
        ({"drain": "wait"}, 'drain must be "end" or "finish"'),
        ({"end": "dirty"}, 'end must be "clean" or "cut"'),
        ({"retry": -1}, "retry must be an int"),
    ):
        with pytest.raises(ValueError, match=named):
            SseEmitter(**options)


def test_shutdown_lets_a_stream_finish_that_is_to(board: Board) -> None:
    go_on = threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        assert go_on.wait(PATIENCE)
        yield "second"

    answer, page = SseEmitter().send_from(items(), done="[DONE]"), SseEmitter()
    board.app.add_url_rule("/answer", "answer", lambda: answer)
    board.app.add_url_rule("/page", "page", lambda: page)
    with board.get("/answer") as response, board.get("/page") as other:
        pieces, _ = response.iter_encoded(), next(other.iter_encoded())
        next(pieces)
        stopping = threading.Thread(target=board.sse.shutdown)
        stopping.start()
        until(lambda: page.close_reason is CloseReason.SHUTDOWN, "the page to be told to come again")
        assert answer.is_open
        go_on.set()
        assert texts(decode(b"".join(pieces)))[-3:] == ["second", "[DONE]", ""]
    stopping.join()
    assert answer.close_reason is CloseReason.COMPLETED


def test_shutdown_aborts_a_stream_that_does_not_finish() -> None:
    board, is_over = Board(SSE_DRAIN_SECONDS=0.2), threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        is_over.wait(PATIENCE)

    answer = SseEmitter(bare=True).send_from(items())
    board.app.add_url_rule("/", view_func=lambda: answer)
    pieces = board.get("/").iter_encoded()
    next(pieces)
    stopping = threading.Thread(target=board.sse.shutdown)
    stopping.start()
    with pytest.raises(BrokenPipeError):
        list(pieces)
    assert answer.close_reason is CloseReason.ERROR
    assert "did not come to its end" in str(answer.error)
    pieces.close()
    stopping.join()
    is_over.set()


def test_datastar_events_and_signals_are_understood(board: Board) -> None:
    from flask_sse_emitters.datastar import read_signals

    class DatastarEvent(str):
        __slots__ = ()

    event = DatastarEvent("event: datastar-patch-elements\ndata: selector #x\ndata: elements <p>\n\n")
    emitter = SseEmitter()
    emitter.send(event)
    emitter.complete()
    assert body_of(board, emitter).endswith(
        b"event: datastar-patch-elements\ndata: selector #x\ndata: elements <p>\n\n"
    )
    app = Flask(__name__)
    marked = {"Datastar-Request": "true"}
    with app.test_request_context("/?datastar=%7B%22a%22%3A1%7D", headers=marked):
        assert read_signals() == read_signals(request) == {"a": 1}
    with app.test_request_context("/", method="POST", json={"b": 2}, headers=marked):
        assert read_signals() == {"b": 2}
    with app.test_request_context("/?datastar=%7B%22a%22%3A1%7D"):
        assert read_signals() is None
    with app.test_request_context("/", method="POST", headers=marked):
        assert read_signals() is None


def test_bare_stream_of_a_channel_has_no_position_no_ids_and_no_gap() -> None:
    board = Board(SSE_HISTORY=2)
    channel = board.sse.channel("answer")
    board.publish("answer", *range(4))
    board.app.add_url_rule("/", view_func=lambda: channel.subscribe(since="first", bare=True))
    with board.get("/", **{"Last-Event-ID": "lost-1"}) as response:
        board.publish("answer", 4)
        channel.complete()
        assert response.data == b": stream open\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n"


def test_end_that_a_client_asks_for_is_how_its_stream_of_channels_ends(board: Board) -> None:
    board.sse.channel("a", public=True)
    assert b"end must be" in board.get("/events/a?end=dirty").data
    for query, breaks in (("", False), ("?end=clean", False), ("?end=cut", True)):
        pieces = board.get(f"/events/a{query}").iter_encoded()
        next(pieces)
        board.sse.disconnect(channel="a")
        if breaks:
            with pytest.raises(BrokenPipeError):
                list(pieces)
        else:
            assert b"retry: " in b"".join(pieces)


def test_client_told_of_the_end_for_good_is_answered_204(board: Board) -> None:
    emitters = SseEmitters()
    view: Any = lambda: (emitters.add(SseEmitter()), 200, {"X-Own": "1"})  # noqa: E731
    board.app.add_url_rule("/", view_func=view)
    response = board.get("/", **{"Last-Event-ID": "~end"})
    assert (response.status_code, response.headers["X-Own"], response.data) == (204, "1", b"")
    assert (len(emitters), board.clients) == (0, 0)
