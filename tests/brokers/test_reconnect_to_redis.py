"""The connection on which a process listens to Redis is cut: it reconnects, and delivers what it has missed."""

from __future__ import annotations

from typing import Any

from tests.brokers.states import await_state
from tests.support.board import Board, read, texts
from tests.support.waiting import until
from tests.support.wire import Wire


def subscribers(client: Any) -> int:
    """Return how many processes listen to the channel ``a``."""
    return int(client.pubsub_numsub("sse:{a}@0")[0][1])


def test_reconnect_delivers_missed_events_in_order_then_new_ones(wire: Wire, wired: Board, board: Board) -> None:
    with wired.open("a", "b") as stream:
        wired.publish("a", 0)
        read(stream, 1)
        wire.is_closed = True
        wire.cut()
        await_state(wired, "degraded")
        for number in range(1, 50):
            board.publish("ab"[number % 2], number)
        assert stream.ready() == []
        wire.is_closed = False
        await_state(wired, "ok")
        numbers = [int(event.data) for event in read(stream, 49)]
        assert [number for number in numbers if number % 2] == [*range(1, 50, 2)]
        assert [number for number in numbers if not number % 2] == [*range(2, 50, 2)]
        board.publish("a", "new")
        assert texts(read(stream, 1)) == ["new"]


def test_reconnect_after_redis_killed_the_subscriber(client: Any, board: Board) -> None:
    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        for number in range(2, 5):
            assert client.client_kill_filter(_type="pubsub") == 1
            board.publish("a", number)
            assert texts(read(stream, 1)) == [str(number)]
            until(lambda: subscribers(client) == 1, "the subscriber to listen again")


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
