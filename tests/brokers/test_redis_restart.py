"""Redis is killed and started again: streams stay open, publishers get errors, and all goes on afterwards."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable
from tests.brokers.states import await_end, await_state, broker_state
from tests.support.board import Board, board_reads, closing_board, gap_of, moved, read, texts
from tests.support.redis_server import RedisServer
from tests.support.waiting import until
from tests.support.wire import Wire


def test_redis_outage_is_logged_once_and_later_events_are_delivered(
    kept: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "flask_sse_emitters")
    with Wire(kept.port) as wire, closing_board(f"redis://127.0.0.1:{wire.port}") as board, board.open("a") as stream:
        board.publish("a", 1)
        assert texts(read(stream, 1)) == ["1"]
        kept.kill()
        for _ in range(3):
            with pytest.raises(BrokerUnavailable, match=r"published.*SSE_BROKER_URL.*does it run"):
                board.publish("a", "lost")
        found = await_state(board, "degraded")
        assert (found["scheme"], str(wire.port) in found["url"]) == ("redis", True)
        assert "onnect" in found["error"]
        tried = wire.connections
        until(lambda: wire.connections > tried + 2, "several attempts, none of which is logged")
        assert stream.ready() == []
        assert len(caplog.messages) == 1
        kept.start()
        await_state(board, "ok")
        board.publish("a", 2)
        assert texts(read(stream, 1)) == ["2"]
    assert [("degraded" in text, "is back" in text) for text in caplog.messages] == [(True, False), (False, True)]


def test_redis_outage_with_a_new_cause_is_logged_again(
    client: Any, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    with board.open("a") as stream:
        board.publish("a", 1)
        assert texts(read(stream, 1)) == ["1"], "the subscriber listens from here on"
        client.config_set("requirepass", "secret")
        client.client_kill_filter(_type="pubsub")
        until(lambda: any("asks for a password: put it into" in text for text in caplog.messages), "the cause")
        assert "asks for a password" in await_state(board, "degraded")["error"]
        causes = [text for text in caplog.messages if "degraded" in text]
        assert len(causes) == len(set(causes))
        client.config_set("requirepass", "")
        await_state(board, "ok")


def test_redis_restart_without_data_is_one_gap_then_new_events(server: RedisServer, board: Board) -> None:
    with board.open("a") as stream:
        ids = board.publish("a", 1, 2)
        read(stream, 2)
        server.kill()
        server.start()
        await_end(board, stream)
    new = board.publish("a", 3, 4)
    events = board_reads(board, "a", last=ids[-1], count=3)
    assert gap_of(events) == {"requested": ids[-1], "oldest": moved(new[0], 0), "newest": new[-1]}
    assert [(event.data, event.id) for event in events[1:]] == [("3", new[0]), ("4", new[1])]
    assert new[0].split("-")[0] != ids[0].split("-")[0]


def test_redis_that_lost_its_lua_scripts_gets_them_again(client: Any, board: Board) -> None:
    with board.open("a") as stream:
        for number in range(3):
            client.script_flush()
            board.publish("a", number)
            assert texts(read(stream, 1)) == [str(number)]
    assert broker_state(board)["state"] == "ok"
