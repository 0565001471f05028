"""How many events a channel keeps in Redis, where processes differ about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_sse_emitters.brokers import Bounds, Broker
from tests.support.board import Board, closing_board
from tests.support.broker_calls import frame, publish
from tests.support.redis_server import RedisServer


def test_history_bounds_stay_after_publish_without_any(client: Any, new_broker: Callable[[], Broker]) -> None:
    broker = new_broker()
    publish(broker, "a", *range(10), bounds=Bounds(3, 60.0))
    broker.publish("a", frame("x"), None)
    assert client.xlen("sse:{a}:log") == 3
    broker.publish("b", frame("x"), None)
    assert client.hmget("sse:{b}:at", "events", "ms") == [b"1000", b"300000"]


def test_history_of_process_that_keeps_fewer_events_is_logged_once(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    board.publish("a", *range(10))
    board.publish("b", 1)
    with closing_board(server.url) as same:
        same.publish("a", 10)
    assert caplog.messages == []
    with closing_board(server.url, SSE_HISTORY=3) as other:
        other.publish("a", 11, 12)
        other.publish("b", 2)
    [message] = caplog.messages
    assert "channel 'a' keeps 3 events for 300 s from now on" in message
    assert "kept 1000 for 300 s before" in message
    assert "SSE_HISTORY" in message
