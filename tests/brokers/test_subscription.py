"""Subscriptions of a process to its channels in Redis: when they begin and end, and what they deliver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from flask_sse_emitters.brokers import Bounds, Broker, Frame, make_broker
from flask_sse_emitters.testing import published
from tests.support.board import Board, board_reads, closing_board, read, texts
from tests.support.broker_calls import RecordingListener, listening, publish, subscribed
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, until


def test_subscription_lookup_without_listener_calls_back_at_once() -> None:
    broker = make_broker("redis://127.0.0.1:1")
    looked: list[str] = []
    broker.look_again("c", lambda: looked.append("c"))
    assert looked == ["c"]


def test_subscription_to_busy_channel_without_history_resets_nobody(new_broker: Callable[[], Broker]) -> None:
    """An announcement from before the lookup is no sign of a loss."""
    broker, ends = new_broker(), threading.Event()

    other = new_broker()

    def publishing() -> None:
        while not ends.is_set():
            publish(other, "a", "x", bounds=Bounds(0, 300.0))

    thread = threading.Thread(target=publishing)
    thread.start()
    try:
        for _ in range(10):
            listener = listening(broker, "a")
            until(partial(has_two, listener), "two events")
            assert listener.starts == 1
            broker.unsubscribe("a", listener)
    finally:
        ends.set()
        thread.join()


def test_subscription_events_of_several_channels_arrive_in_publish_order(server: RedisServer, board: Board) -> None:
    with published(board.sse, "a", "b") as events, closing_board(server.url) as other:
        for number in range(200):
            other.publish("ab"[number % 3 == 0], number)
    assert texts(events) == [str(number) for number in range(200)]


def test_subscription_of_failing_listener_delays_no_other(
    new_broker: Callable[[], Broker], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(RecordingListener):
        def arrived(self, frames: Sequence[Frame]) -> None:  # noqa: ARG002 - it fails
            raise RuntimeError("this one fails")

    broker = new_broker()
    subscribed(broker, "a", Failing())
    listener = listening(broker, "a")
    publish(broker, "a", "x", "y")
    until(partial(has_two, listener), "both events")
    assert "an error in" in caplog.messages[0]
    assert broker.status()["state"] == "ok"


def has_two(listener: RecordingListener) -> bool:
    return len(listener.frames) >= 2


def test_subscription_reads_channel_once_for_clients_that_reconnect(client: Any, board: Board) -> None:
    [*_, last, _] = board.publish("a", *["x" * 10_000] * 100)
    before = client.info("stats")["total_net_output_bytes"]
    for _ in range(20):
        with board.open("a", last=last) as stream:
            assert len(read(stream, 1)) == 1
    assert client.info("stats")["total_net_output_bytes"] - before < 2 * 100 * 10_000


def test_subscription_ends_some_seconds_after_last_client(client: Any, board: Board) -> None:
    def subscribers() -> int:
        return int(client.pubsub_numsub("sse:{a}@0")[0][1])

    with board.open("a") as stream:
        [first] = board.publish("a", "first")
        read(stream, 1)
    board.publish("a", "meanwhile")
    assert subscribers() == 1
    assert texts(board_reads(board, "a", last=first, count=1)) == ["meanwhile"]
    until(lambda: subscribers() == 0, "the channel to be let go")
    assert board.sse.channel("a").subscribers() == 0


def test_subscription_finds_event_whose_announcement_was_lost(client: Any, new_broker: Callable[[], Broker]) -> None:
    """As between the nodes of a cluster. The process looks the channel up again from time to time."""
    broker, looked_up = new_broker(), threading.Event()
    publish(broker, "a", 1)
    listener = listening(broker, "a")
    _, fields = client.xrange("sse:{a}:log")[0]
    client.xadd("sse:{a}:log", fields, id="2-0")
    client.hincrby("sse:{a}:at", "offset", 1)
    broker.look_again("a", looked_up.set)
    assert looked_up.wait(PATIENCE)
    assert [each.offset for each in listener.frames] == [2]
