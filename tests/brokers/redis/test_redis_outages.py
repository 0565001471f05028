"""Redis is killed, paused, cut off or full: streams stay open, publishers get errors, and all goes on afterwards."""

from __future__ import annotations

import logging
import signal
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.metrics import SseMetrics
from flask_sse_emitters.signals import broker_changed
from tests.brokers.any_server import check_order_after_reconnect
from tests.brokers.states import await_state, broker_state, subscribers
from tests.support.board import Board, board_reads, closing_board, read, texts
from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import until
from tests.support.wire import Wire

KEEPS_ALL = ("--appendonly", "yes", "--appendfsync", "always")


def test_outage_is_logged_once_and_later_events_are_delivered(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "flask_sse_emitters")
    with (
        RedisServer(*KEEPS_ALL) as server,
        Wire(server.port) as wire,
        closing_board(wire.url) as board,
        board.open("a") as stream,
    ):
        board.publish("a", 1)
        assert texts(read(stream, 1)) == ["1"]
        server.kill()
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
        server.start()
        await_state(board, "ok")
        board.publish("a", 2)
        assert texts(read(stream, 1)) == ["2"]
    assert [("degraded" in text, "is back" in text) for text in caplog.messages] == [(True, False), (False, True)]


def test_outage_is_signalled_and_measured_at_any_log_level(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "flask_sse_emitters")
    registry = CollectorRegistry()
    SseMetrics(board.sse, registry=registry)
    sent: list[tuple[str, Any]] = []

    def values(*names: str) -> list[float | None]:
        return [registry.get_sample_value(f"sse_{name}") for name in names]

    def note(_: Flask, *, state: str, error: Any) -> None:
        sent.append((state, error))

    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        assert values("broker_up") == [1]
        with broker_changed.connected_to(note, board.app):
            server.kill()
            for _ in range(2):
                with pytest.raises(BrokerUnavailable):
                    board.publish("a", 2)
            assert values("broker_up", "publish_failures_total") == [0, 2]
            assert values("events_published_total", "publish_seconds_count") == [1, 1]
            [(state, error)] = until(lambda: sent, "the signal")
            assert state == "degraded"
            assert error in broker_state(board)["error"]
            server.start()
            until(lambda: sent[1:] == [("ok", None)], "Redis")


def test_outage_with_a_new_cause_is_logged_again(client: Any, board: Board, caplog: pytest.LogCaptureFixture) -> None:
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


def test_redis_that_lost_its_lua_scripts_gets_them_again(client: Any, board: Board) -> None:
    with board.open("a") as stream:
        for number in range(3):
            client.script_flush()
            board.publish("a", number)
            assert texts(read(stream, 1)) == [str(number)]
    assert broker_state(board)["state"] == "ok"


def test_pause_of_redis_is_noticed_by_ping_and_subscriber_recovers(server: RedisServer, board: Board) -> None:
    """A publish meanwhile times out, and its key makes it safe to try it again."""

    def published() -> str | None:
        try:
            return hasty.sse.publish("a", "2", key="k")
        except BrokerUnavailable:
            return None

    with (
        closing_board(server.url, SSE_PUBLISH_SECONDS=0.2) as hasty,
        hasty.open("a") as stream,
        board.open("a") as idle,
    ):
        hasty.publish("a", 1)
        assert texts(read(stream, 1)) == texts(read(idle, 1)) == ["1"]
        server.signal(signal.SIGSTOP)
        assert published() is None
        assert "publishing" in broker_state(hasty)["error"]
        assert "listening" in await_state(board, "degraded")["error"], "it notices without a publish"
        server.signal(signal.SIGCONT)
        event_id = until(published, "the server to go on")
        assert board.sse.publish("a", "2", key="k") == event_id
        board.publish("a", 3)
        for each in (stream, idle):
            assert texts(read(each, 2)) == ["2", "3"]
        for publisher in (hasty, board):
            await_state(publisher, "ok")


def test_reconnect_delivers_missed_events_in_order_then_new_ones(wire: Wire, wired: Board, board: Board) -> None:
    check_order_after_reconnect(wire, wired, board)


def test_reconnect_of_slow_subscriber_reads_the_rest_from_log(
    client: Any, wire: Wire, wired: Board, board: Board
) -> None:
    client.config_set("client-output-buffer-limit", "pubsub 200kb 100kb 1")
    with wired.open("a") as stream:
        wired.publish("a", "first")
        read(stream, 1)
        wire.is_held = True
        # More than its limit and the buffers between hold.
        numbers = [f"{number} {'x' * 200_000}" for number in range(80)]
        board.publish("a", *numbers)
        until(lambda: subscribers(client) == 0, "the subscriber to be cut off")
        wire.is_held = False
        assert texts(read(stream, len(numbers))) == numbers


def refused(board: Board) -> None:
    with pytest.raises(BrokerUnavailable, match="maxmemory"):
        board.publish("a", "refused")


def test_full_redis_refuses_publish_keeps_streams_and_is_not_back(
    server: RedisServer, client: Any, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    """Streams replay events, clients are counted, and the subscriber reconnects meanwhile."""

    def listeners() -> list[str]:
        return [each["id"] for each in client.client_list(_type="pubsub")]

    with board.open("a") as stream:
        [first, _] = board.publish("a", 1, 2)
        read(stream, 2)
        client.config_set("maxmemory", 1)
        refused(board)
        await_state(board, "degraded")
        board.sse.channel("a").subscribers()
        [before] = listeners()
        client.client_kill_filter(_type="pubsub")
        until(lambda: before not in listeners() and listeners(), "the subscriber to listen again")
        until(lambda: "listening: " not in broker_state(board)["error"], "it to receive")
        assert "publishing: " in broker_state(board)["error"]
        assert not any("is back" in text for text in caplog.messages)
        with closing_board(server.url) as other:
            assert texts(board_reads(other, "a", last=first, count=1)) == ["2"]
        client.config_set("maxmemory", 0)
        board.publish("a", 3)
        assert texts(read(stream, 1)) == ["3"]
        await_state(board, "ok")


def test_full_redis_that_has_room_again_is_ok_without_publish(server: RedisServer, client: Any, board: Board) -> None:
    """Also in a process whose clients have left; and nothing is left of a lookup that was refused."""
    with closing_board(server.url) as deserted, board.open("a"):
        with deserted.open("a"):
            client.config_set("maxmemory", 1)
            for each in (board, deserted):
                refused(each)
        assert broker_state(deserted)["state"] == "degraded"
        with board.open("new"):
            until(lambda: "reading: " in broker_state(board)["error"], "the lookup to be refused")
        client.config_set("maxmemory", 0)
        for each in (board, deserted):
            await_state(each, "ok")
        server.kill()
        assert await_state(board, "degraded")["error"].startswith("listening: ")
