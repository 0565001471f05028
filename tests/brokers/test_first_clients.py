"""The first client of a channel in a process, and clients that know more than it: none misses an event."""

from __future__ import annotations

import time
from typing import Any

from tests.brokers.states import await_end
from tests.support.board import Board, board_reads, closing_board, gap_of, read, texts
from tests.support.redis_server import RedisServer
from tests.support.wire import Wire


def test_first_client_ahead_of_process_gets_next_event_without_gap(wire: Wire, wired: Board, board: Board) -> None:
    with wired.open("a") as before:
        wired.publish("a", 1)
        read(before, 1)
        wire.is_held = True
        ids = board.publish("a", 2, 3)
        with wired.open("a", last=ids[0]) as stream:
            assert stream.ready() == []
            wire.is_held = False
            events = read(stream, 1)
            assert texts(events) == ["3"]
            assert texts(read(before, 2)) == ["2", "3"]
            board.publish("a", 4)
            assert texts(read(stream, 1)) == ["4"]


def test_first_client_ahead_of_process_after_flush_reconnects_without_gap(
    client: Any, wire: Wire, wired: Board, board: Board
) -> None:
    with wired.open("a") as before:
        wired.publish("a", 1)
        read(before, 1)
        wire.is_held = True
        client.flushall()
        ids = board.publish("a", 2, 3)
        with wired.open("a", last=ids[0]) as stream:
            assert stream.ready() == []
            wire.is_held = False
            await_end(wired, stream)
    assert texts(board_reads(wired, "a", last=ids[0], count=1)) == ["3"]


def test_first_client_gets_events_published_after_it_connected(wire: Wire, wired: Board, board: Board) -> None:
    """Its process receives their announcements later."""
    board.publish("a", "before")
    time.sleep(0.01)  # times are known to milliseconds
    wire.is_held = True
    with wired.open("a") as stream:
        assert stream.ready() == []
        board.publish("a", 1, 2)
        wire.is_held = False
        assert texts(read(stream, 2)) == ["1", "2"]


def test_first_client_gets_gap_if_events_since_connect_are_dropped(
    wire: Wire, wired: Board, server: RedisServer
) -> None:
    wire.is_held = True
    with wired.open("a") as stream, closing_board(server.url, SSE_HISTORY=2) as other:
        assert stream.ready() == []
        ids = other.publish("a", *range(5))
        wire.is_held = False
        events = read(stream, 3)
        assert gap_of(events) == {"requested": "", "oldest": ids[3], "newest": ids[4]}
        assert texts(events[1:]) == ["3", "4"]


def test_first_client_gets_gap_if_no_events_since_connect_are_kept(wire: Wire, server: RedisServer) -> None:
    with closing_board(f"redis://127.0.0.1:{wire.port}", SSE_HISTORY=0) as wired:
        wire.is_held = True
        with wired.open("a") as stream, closing_board(server.url, SSE_HISTORY=0) as other:
            assert stream.ready() == []
            time.sleep(0.01)  # times are known to milliseconds
            other.publish("a", 1, 2)
            wire.is_held = False
            assert gap_of(read(stream, 1))["requested"] == ""
            other.publish("a", 3)
            assert texts(read(stream, 1)) == ["3"]
