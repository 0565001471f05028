"""Apps that are closed or dropped leave nothing behind in their process."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import SSE, CloseReason, SseEmitter
from tests.support.board import Board
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE, until


@pytest.mark.parametrize("kind", ["threads", "gevent"])
@pytest.mark.parametrize("how", ["close", "drop"])
def test_close_or_drop_of_twenty_apps_leaves_no_thread_or_connection(how: str, kind: str) -> None:
    with RedisServer() as server:
        command = [sys.executable, "-m", "tests.apps.closing_process", server.url, how, kind]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=4 * PATIENCE)
    assert done.stdout == "all is freed\n", done.stderr


def test_dropped_app_that_has_published_is_freed() -> None:
    """The timer that removes old events outlives it."""

    def use() -> weakref.ref[Any]:
        board = Board()
        with board.open("a"):
            board.publish("a", 1)
        return weakref.ref(board.sse.find_state())

    state = use()
    until(lambda: gc.collect() is not None and state() is None, "the app's state to be freed")


def test_close_ends_streams_and_later_calls_raise(board: Board) -> None:
    emitters: list[SseEmitter] = []

    @board.app.get("/news")
    def news() -> SseEmitter:
        emitters.append(board.sse.channel("a").subscribe())
        return emitters[0]

    with board.client.get("/news") as response:
        chunks = response.iter_encoded()
        next(iter(chunks))
        for _ in range(2):
            board.sse.close()
        assert emitters[0].close_reason is CloseReason.SHUTDOWN
    for use in (
        lambda: board.sse.publish("a", 1),
        lambda: board.sse.publish_to("someone", 1),
        lambda: board.sse.channel("a").publish(1),
        lambda: board.sse.disconnect("someone"),
        lambda: board.sse.recheck("someone"),
    ):
        with pytest.raises(RuntimeError, match=r"this SSE is closed.*before sse\.close\(\)"):
            use()
    assert board.sse.stats()["clients"] == 0


def test_close_of_one_app_leaves_the_other_alone() -> None:
    sse = SSE()
    apps = [Flask(name) for name in ("one", "other")]
    for app in apps:
        sse.init_app(app)
    with apps[0].app_context():
        sse.close()
    with apps[1].app_context():
        assert sse.publish("a", 1)


@pytest.fixture
def board() -> Board:
    return Board()
