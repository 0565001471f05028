"""A full Redis refuses writes: publishers get errors, streams stay open, and the state follows."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable
from tests.brokers.states import await_state, broker_state
from tests.support.board import Board, board_reads, closing_board, read, texts
from tests.support.redis_server import RedisServer
from tests.support.waiting import until


def refused(board: Board) -> None:
    with pytest.raises(BrokerUnavailable, match="maxmemory"):
        board.publish("a", "refused")


def test_full_redis_refuses_publish_replays_events_and_keeps_streams(
    server: RedisServer, client: Any, board: Board
) -> None:
    with board.open("a") as stream:
        [first, _] = board.publish("a", 1, 2)
        read(stream, 2)
        client.config_set("maxmemory", 1)
        refused(board)
        await_state(board, "degraded")
        with closing_board(server.url) as other:
            assert texts(board_reads(other, "a", last=first, count=1)) == ["2"]
        client.config_set("maxmemory", 0)
        board.publish("a", 3)
        assert texts(read(stream, 1)) == ["3"]
        await_state(board, "ok")


def test_full_redis_that_has_room_again_is_ok_without_publish(server: RedisServer, client: Any, board: Board) -> None:
    """Also in a process whose clients have left."""
    with closing_board(server.url) as deserted, board.open("a"):
        with deserted.open("a"):
            client.config_set("maxmemory", 1)
            for each in (board, deserted):
                refused(each)
        assert broker_state(deserted)["state"] == "degraded"
        client.config_set("maxmemory", 0)
        for each in (board, deserted):
            await_state(each, "ok")


def test_full_redis_that_refused_a_lookup_leaves_no_trouble_behind(
    server: RedisServer, client: Any, board: Board
) -> None:
    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        client.config_set("maxmemory", 1)
        with board.open("new"):
            assert "reading: " in await_state(board, "degraded")["error"]
        client.config_set("maxmemory", 0)
        await_state(board, "ok")
        server.kill()
        assert await_state(board, "degraded")["error"].startswith("listening: ")


def test_full_redis_that_refuses_publish_is_not_logged_as_back(
    client: Any, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    def listeners() -> list[str]:
        return [each["id"] for each in client.client_list(_type="pubsub")]

    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        client.config_set("maxmemory", 1)
        refused(board)
        board.sse.channel("a").subscribers()  # reads are allowed
        assert "publishing: " in broker_state(board)["error"]
        [before] = listeners()
        client.client_kill_filter(_type="pubsub")
        until(lambda: before not in listeners() and listeners(), "the subscriber to listen again")
        until(lambda: "listening: " not in broker_state(board)["error"], "it to receive")
        assert "publishing: " in broker_state(board)["error"]
        assert not any("is back" in text for text in caplog.messages)
