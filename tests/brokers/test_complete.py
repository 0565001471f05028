"""complete() with a Redis: a stream that is completed gets all that was published before, and then ends."""

from __future__ import annotations

import signal

import pytest

from flask_sse_emitters.testing import decode
from tests.support.board import Board, closing_board, read, texts
from tests.support.redis_server import RedisServer
from tests.support.waiting import until


@pytest.mark.parametrize("what", ["list", "stream"])
def test_complete_delivers_events_published_before(board: Board, what: str) -> None:
    for number in range(20):
        channel = board.sse.channel(f"c{number}")
        with board.open(channel.name) as stream:
            board.publish(channel.name, *range(5))
            completed = channel.emitters if what == "list" else next(iter(channel.emitters))
            completed.complete()
            until(lambda channel=channel: len(channel.emitters) == 0, "the end")  # type: ignore[misc]
            assert texts(stream.ready()) == [*"01234"]


def test_complete_at_once_replays_missed_events(server: RedisServer, board: Board) -> None:
    ids = board.publish("c", *range(6))
    with closing_board(server.url) as other, other.app.test_request_context():
        emitter = other.sse.channel("c").subscribe(last_event_id=ids[0])
        emitter.complete()
        with emitter.response() as response:
            until(lambda: len(other.sse.channel("c").emitters) == 0, "the end")
            assert texts(decode(b"".join(response.iter_encoded()))) == [*"12345"]


def test_complete_during_redis_outage_ends_stream_after_it(server: RedisServer, board: Board) -> None:
    emitters = board.sse.channel("c").emitters
    with board.open("c") as stream:
        board.publish("c", 1)
        assert texts(read(stream, 1)) == ["1"]
        server.signal(signal.SIGSTOP)
        next(iter(emitters)).complete()
        assert (stream.ready(), len(emitters)) == ([], 1)
        server.signal(signal.SIGCONT)
        until(lambda: len(emitters) == 0, "the end")
