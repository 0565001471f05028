"""Statistics of streams: how many there are, were refused, and how they ended."""

from __future__ import annotations

import threading
import time

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board
from tests.support.waiting import PATIENCE


def test_stats_count_streams_by_close_reason_writer_and_channel(board: Board) -> None:
    board.app.add_url_rule("/mine", view_func=SseEmitter)
    for end in (SseEmitter.complete, lambda emitter: emitter.complete_with_error(RuntimeError()), lambda _: None):
        with open_stream(board.client, "/mine") as stream:
            end(board.emitters[-1])
            stream.ready()
    stats = board.sse.stats()
    assert stats["closed"] == {"completed": 1, "error": 1, "disconnected": 1}
    assert (stats["clients"], stats["opened"], stats["channels"], stats["warnings"]) == (0, 3, {}, [])
    with open_stream(board.client, "/mine") as one, board.open("a", "b") as two:
        board.emitters[-2].send("x")
        board.publish("a", "x")
        assert len(one.ready() + two.ready()) == 2
        stats = board.sse.stats()
    assert stats["outlets"] == {"handed_off": 0, "server": 2}
    assert stats["declined"] == {"the server is not gunicorn with its gevent worker": 2}
    assert stats["channels"] == {"a": 1, "b": 1}
    assert stats["broker"] == {"scheme": "memory", "state": "ok"}


def test_stats_while_channels_open_and_close_raise_no_error(board: Board) -> None:
    def open_and_close() -> None:
        for number in range(100):
            with board.open(f"user:{number}", f"other:{number}"):
                pass

    thread = threading.Thread(target=open_and_close)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while thread.is_alive() and time.monotonic() < deadline:
        board.sse.stats()
    thread.join(PATIENCE)
    assert (board.sse.stats()["opened"], board.clients) == (100, 0)
