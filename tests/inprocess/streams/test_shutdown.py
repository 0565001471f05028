"""Shutdown and close: what open, ended and new streams get, and what is left of an app."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from flask import Flask

from flask_sse_emitters import SSE, CloseReason, SseEmitter
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board, texts
from tests.support.waiting import PATIENCE, until


def test_shutdown_delivers_a_completed_stream_that_comes_later(board: Board) -> None:
    @board.app.get("/report")
    def report() -> SseEmitter:
        emitter = SseEmitter()
        emitter.send("all of it")
        emitter.complete()
        return emitter

    board.sse.shutdown()
    with open_stream(board.client, "/report") as stream:
        assert texts(stream.ready()) == ["all of it"]


def test_shutdown_inside_a_callback_returns() -> None:
    board, done = Board(SSE_DRAIN_SECONDS=60), threading.Event()

    @board.app.get("/mine")
    def mine() -> SseEmitter:
        emitter = SseEmitter()

        @emitter.on_completion
        def stop() -> None:
            board.sse.shutdown()
            done.set()

        return emitter

    with open_stream(board.client, "/mine"):
        pass
    assert done.wait(PATIENCE)


def test_close_ends_streams_and_later_calls_raise(board: Board) -> None:
    with board.get("/events/a") as response:
        thread = threading.Thread(target=board.sse.close)
        thread.start()
        assert b"".join(response.iter_encoded()).count(b"retry: ") == 2, "one for the beginning, one for the end"
        assert board.emitters[0].close_reason is CloseReason.SHUTDOWN
    thread.join(PATIENCE)
    board.sse.close()
    for use in (
        lambda: board.sse.publish("a", 1),
        lambda: board.sse.publish_to("someone", 1),
        lambda: board.sse.channel("a").publish(1),
        lambda: board.sse.disconnect("someone"),
        lambda: board.sse.recheck("someone"),
    ):
        with pytest.raises(RuntimeError, match=r"this SSE is closed.*before sse\.close\(\)"):
            use()
    assert board.clients == 0


def test_close_of_one_app_leaves_the_other_alone() -> None:
    sse = SSE()
    apps = [Flask(name) for name in ("one", "other")]
    for app in apps:
        sse.init_app(app)
    with apps[0].app_context():
        sse.close()
    with apps[1].app_context():
        assert sse.publish("a", 1)


def test_dropped_app_that_has_published_is_freed() -> None:
    """The timer that removes old events outlives it."""

    def use() -> weakref.ref[Flask]:
        board = Board()
        with board.open("a"):
            board.publish("a", 1)
        return weakref.ref(board.app)

    app = use()
    until(lambda: gc.collect() is not None and app() is None, "the app to be freed")
