"""The clients of all processes, counted; and what other processes report of themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Broker
from tests.brokers.states import await_state
from tests.support.board import Board, closing_board, config, read, texts
from tests.support.broker_calls import RecordingListener, listening
from tests.support.client import connected
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import until


def test_count_has_clients_of_all_processes(server: RedisServer, client: Any, board: Board) -> None:
    with closing_board(server.url) as other:
        channel, there = board.sse.channel("a"), other.sse.channel("a")
        assert (channel.subscribers(), there.subscribers()) == (0, 0)
        with board.open("a"), other.open("a"), other.open("a", "b"):
            until(lambda: (channel.subscribers(), there.subscribers()) == (3, 3), "three clients")
            until(lambda: board.sse.channel("b").subscribers() == 1, "one client")
            assert other.sse.stats()["channels"] == {"a": 2, "b": 1}
            client.flushall()
            until(lambda: channel.subscribers() == 3, "three clients, once more")
        until(lambda: (channel.subscribers(), there.subscribers()) == (0, 0), "no client")


def test_count_is_right_after_redis_flush_and_many_changes(new_broker: Callable[[], Broker], client: Any) -> None:
    """More changes than one command names."""
    broker, other = new_broker(), new_broker()
    channels = [f"c{number}" for number in range(600)]
    for channel in channels:
        broker.subscribe(channel, RecordingListener())
        broker.count_again(channel)
    until(lambda: other.clients_elsewhere(channels[-1]) == 1, "the clients to be counted")
    client.flushall()
    for channel in channels[:300]:
        broker.count_again(channel)

    def count() -> int:
        [process] = other.processes() or [{}]
        return len(process.get("channels", ()))

    until(lambda: count() == 600, "all to be counted again")


def test_count_forgets_clients_of_killed_process_once_its_report_expires(
    server: RedisServer, client: Any, board: Board
) -> None:
    channel = board.sse.channel("a")
    with Server("gthread", "tests.apps.channels:app", env=config(server)) as http, connected(http, "/events/a"):
        until(lambda: channel.subscribers() == 1, "its client")
        http.kill()
    [process] = client.zrange("sse:{here}:processes", 0, -1)
    [until_ms] = client.zmscore("sse:{here}:processes", [process])
    assert until_ms - time.time() * 1000 <= 12_000
    assert 0 < client.pttl(b"sse:{here}:process:" + process) <= 12_000
    client.zadd("sse:{here}:processes", {process: time.time() * 1000 - 1})  # as that much later
    assert (channel.subscribers(), board.sse.processes()) == (0, [])


def test_count_figures_of_process_are_gathered_off_subscriber_thread(new_broker: Callable[[], Broker]) -> None:
    """Gathering them goes through all clients, so it must not delay the events of others."""
    broker, other = new_broker(), new_broker()
    threads: list[str] = []

    def about() -> dict[str, int]:
        threads.append(threading.current_thread().name)
        return {"clients": 7}

    broker.about = about
    listening(broker, "a")
    broker.count_again("a")
    until(lambda: [each.get("clients") for each in other.processes()] == [7], "the figures to arrive")
    assert set(threads) == {"sse-figures"}


def test_count_lacks_clients_of_closed_broker(new_broker: Callable[[], Broker]) -> None:
    broker, other = new_broker(), new_broker()
    listening(broker, "a")
    broker.count_again("a")
    until(lambda: other.clients_elsewhere("a") == 1, "its client")
    for _ in range(2):  # closing it again changes nothing
        broker.close()
        assert other.clients_elsewhere("a") == 0


def test_count_without_redis_raises(server: RedisServer, board: Board) -> None:
    server.kill()
    with pytest.raises(BrokerUnavailable, match="Redis did not count the clients"):
        board.sse.channel("a").subscribers()


def test_count_that_fails_delays_no_event(server: RedisServer, client: Any, board: Board) -> None:
    client.set("sse:{here}:processes", "something else")
    with board.open("a") as stream:
        assert "counting clients: WRONGTYPE" in await_state(board, "degraded")["error"]
        for number in range(3):
            board.publish("a", number)
            assert texts(read(stream, 1)) == [str(number)]
        client.delete("sse:{here}:processes")
        await_state(board, "ok")
        with closing_board(server.url) as other:
            until(lambda: other.sse.channel("a").subscribers() == 1, "the client to be counted")
