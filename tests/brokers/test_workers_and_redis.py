"""Workers of a real gunicorn that share a Redis: they survive its restart, and are not counted once they shut down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.board import closing_board, config
from tests.support.client import connected, get, post
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as redis:
        yield redis


@pytest.fixture(scope="module", params=["gevent", "gthread"])
def http(request: pytest.FixtureRequest, redis: RedisServer) -> Iterator[Server]:
    arguments = ["--workers", "2", "--graceful-timeout", f"{PATIENCE:.0f}"]  # gunicorn kills workers that take longer
    env = config(redis, SSE_MAX_CLIENTS=5, SSE_DRAIN_SECONDS=0.2)
    with Server(request.param, "tests.apps.channels:app", env=env, arguments=arguments) as http:
        yield http


@pytest.fixture(autouse=True)
def running(http: Server) -> None:
    try:
        get(http, "/stats")
    except OSError:  # the test before has stopped it
        http.start()


def test_workers_keep_streams_during_redis_restart(http: Server, redis: RedisServer) -> None:
    with connected(http, "/events/a") as client, connected(http, "/events/a") as other:
        post(http, "/publish/a", 1)
        assert (client.texts(1), other.texts(1)) == (["1"], ["1"])
        redis.kill()
        with pytest.raises(AssertionError, match="Internal Server Error"):
            post(http, "/publish/a", 2)
        received = b""
        while received.count(b":\n") < 5:  # heartbeats continue
            received += client.read_some()
        redis.start()
        until(lambda: get(http, "/stats")["broker"]["state"] == "ok", "Redis to be back")
        post(http, "/publish/a", 3)
        assert (client.texts(1), other.texts(1)) == (["3"], ["3"])
        assert get(http, "/stats")["warnings"] == []


def test_workers_that_shut_down_are_no_longer_counted(http: Server, redis: RedisServer) -> None:
    with closing_board(redis.url) as board, connected(http, "/events/b"), connected(http, "/events/b"):
        channel = board.sse.channel("b")
        until(lambda: channel.subscribers() == 2, "their clients")
        until(board.sse.processes, "their figures")
        http.stop()  # waits until they have ended
        assert (channel.subscribers(), board.sse.processes()) == (0, [])
