"""Connections to Redis: how many there are, when they end, and what they share with a fork or with gevent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from flask_sse_emitters.brokers import Broker
from tests.brokers.any_server import check_refusal_of_unpatched_sockets
from tests.support.board import Board, read, texts
from tests.support.brokers.broker_calls import in_threads, listening, publish
from tests.support.brokers.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE, until


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis to which nothing else is connected."""
    with RedisServer() as server:
        yield server


def connections(client: Any) -> int:
    """Return the number of connections that others have."""
    return len(client.client_list()) - 1


def test_connections_are_no_more_for_many_clients(client: Any, board: Board) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(board.open(f"c{number % 20}")) for number in range(60)]
        for number in range(20):
            board.publish(f"c{number}", number)
        for number, stream in enumerate(streams):
            assert texts(read(stream, 1)) == [str(number % 20)]
        assert connections(client) <= 3, "one for the subscriber, and one for each of two concurrent lookups"
        assert len(client.pubsub_channels("sse:{c*")) == 20
        in_threads([partial(board.publish, "c1", *range(20))] * 30)
        assert connections(client) <= 9, "one for the subscriber, and eight to publish"


def test_publish_where_redis_has_closed_the_connection_takes_another(
    client: Any, new_broker: Callable[..., Broker]
) -> None:
    """As Redis does with idle ones (``timeout``). What is sent there may have been published, or not: nobody knows."""
    broker = new_broker()
    publish(broker, "a", "before")
    client.client_kill_filter(skipme=True)
    until(lambda: connections(client) == 0, "all to be closed")
    publish(broker, "a", "after")
    assert broker.state("a").newest == 2


def test_connections_with_other_prefix_or_database_are_apart(
    server: RedisServer, new_broker: Callable[..., Broker]
) -> None:
    places = [(server.url, "sse"), (server.url, "other"), (f"{server.url}/1", "sse")]
    brokers = [new_broker(url, prefix=prefix) for url, prefix in places]
    listeners = [listening(broker, "a") for broker in brokers]
    for number, broker in enumerate(brokers):
        publish(broker, "a", f"{number} a", f"{number} b")
    until(lambda: all(len(listener.frames) == 2 for listener in listeners), "its own for each")
    for number, listener in enumerate(listeners):
        assert listener.texts == [b"data: %d a\n\n" % number, b"data: %d b\n\n" % number]
        assert listener.starts == 1


def test_connections_end_at_close_and_after_later_use(client: Any, new_broker: Callable[[], Broker]) -> None:
    broker = new_broker()
    listening(broker, "a")
    publish(broker, "a", "x")
    assert connections(client)
    broker.close()
    until(lambda: not connections(client), "all connections to be closed")
    publish(broker, "a", "y")
    assert broker.clients_elsewhere("a") == 0
    until(lambda: not connections(client), "the new ones to be closed")


@pytest.mark.parametrize("kind", ["threads", "gevent"])
def test_close_or_drop_of_many_apps_leaves_no_thread_or_connection(kind: str, server: RedisServer) -> None:
    command = [sys.executable, "-m", "tests.apps.brokers.closing_process", server.url, kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=4 * PATIENCE)
    assert done.stdout == "all is freed\n", done.stderr


def test_fork_under_gevent_takes_no_message_or_answer_of_the_parent(server: RedisServer) -> None:
    command = [sys.executable, "-m", "tests.apps.brokers.gevent_fork_redis", server.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * PATIENCE)
    assert (done.returncode, done.stdout) == (0, "received by the child: 0\n"), done.stderr


def test_gevent_without_patched_sockets_is_refused(server: RedisServer) -> None:
    check_refusal_of_unpatched_sockets(server.url)
