"""Views that wait in drivers, which nothing has patched, in a worker that holds many streams."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psutil
import psycopg
import pytest

from flask_sse_emitters import Publisher
from flask_sse_emitters.testing import read_events
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import post, slow_client, stats
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = pytest.mark.xdist_group("postgresql")

#: Number of open streams. 2000 is a good number for a run by hand.
STREAMS = int(os.environ.get("DRIVER_STREAMS", "500"))

#: Threads of the worker: far fewer than there are streams.
THREADS = 4

#: How often each view is called.
CALLS = 10


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as redis:
        yield redis


@pytest.fixture(scope="module")
def database(postgresql: PostgresqlServer) -> str:
    return postgresql.new_database()


@pytest.fixture(scope="module")
def server(redis: RedisServer, database: str) -> Iterator[Server]:
    env = {"REDIS": redis.url, "DATABASE": database}
    with Server("gthread", "tests.apps.servers.drivers:app", env=env, arguments=["--threads", str(THREADS)]) as server:
        yield server


@contextmanager
def streaming(server: Server, streams: int) -> Iterator[list[http.client.HTTPResponse]]:
    """Open streams with a descriptor for each; yield them once all are handed off."""
    with ExitStack() as stack:
        until(lambda: stats(server)["clients"] == 0, "the end of earlier streams")
        clients = [stack.enter_context(slow_client(server, "/events/news", buffer=65_536)) for _ in range(streams)]
        responses = [stack.enter_context(http.client.HTTPResponse(each)) for each in clients]
        for response in responses:
            response.begin()
        until(lambda: stats(server)["outlets"] == {"handed_off": streams, "server": 0}, "the hand-offs")
        yield responses


def texts(response: http.client.HTTPResponse, count: int) -> list[str]:
    return [event.data for event in read_events(response, count)]


def following(count: int, calls: int) -> list[int]:
    """Return the next numbers of a counter."""
    return list(range(count + 1, count + 1 + calls))


def test_drivers_without_patches_work_beside_many_streams(
    server: Server, redis: RedisServer, postgresql: PostgresqlServer, database: str
) -> None:
    """Each view is called by several clients at once, and publishes. A call by requests takes two threads."""
    drivers = ["redis", "psycopg", "sqlalchemy", "requests"]
    with streaming(server, STREAMS) as responses, ThreadPoolExecutor(THREADS - 1) as threads:
        before: dict[str, int] = dict(postgresql.run("SELECT driver, count FROM counters", database))
        redis.client().rpush("numbers", *range(CALLS))
        calls = drivers * CALLS
        answers = threads.map(lambda driver: post(server, f"/{driver}")["number"], calls)
        found = list(zip(calls, answers, strict=True))
        numbers = {driver: sorted(number for each, number in found if each == driver) for driver in drivers}
        assert numbers["redis"] == list(range(CALLS))
        assert numbers["psycopg"] == following(before["psycopg"], CALLS)
        both = sorted(numbers["sqlalchemy"] + numbers["requests"])
        assert both == following(before["sqlalchemy"], 2 * CALLS), "one calls the other"
        sent = [*found, *(("sqlalchemy", number) for number in numbers["requests"])]
        first, *others = [texts(response, len(sent)) for response in responses]
        assert sorted(first) == sorted(f"{driver} {number}" for driver, number in sent)
        assert all(each == first for each in others), "all get all, in one order"
        worker = psutil.Process(stats(server)["pid"])
        assert worker.num_threads() < THREADS + 16, "the worker's, and some of the package"


def test_drivers_that_wait_hold_up_neither_streams_nor_views(
    server: Server, redis: RedisServer, postgresql: PostgresqlServer, database: str
) -> None:
    """Three of four threads wait: one for Redis, one for PostgreSQL, and one for that one's view."""
    with (
        streaming(server, 5) as responses,
        ThreadPoolExecutor(2) as threads,
        psycopg.connect(database) as other,
    ):
        [(before,)] = other.execute("SELECT count FROM counters WHERE driver = 'sqlalchemy' FOR UPDATE")
        waiting = {driver: threads.submit(post, server, f"/{driver}") for driver in ("redis", "requests")}
        until(lambda: redis.client().info("clients")["blocked_clients"] == 1, "the view that waits for Redis")
        locks = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        until(lambda: postgresql.run(locks), "the view that waits for PostgreSQL")
        post(server, "/publish/news", "meanwhile")
        assert [texts(response, 1) for response in responses] == [["meanwhile"]] * 5
        assert not any(each.done() for each in waiting.values())
        redis.client().rpush("numbers", 7)
        assert waiting["redis"].result() == {"number": 7}
        other.rollback()
        assert waiting["requests"].result() == {"number": before + 1}
        expected = ["redis 7", f"sqlalchemy {before + 1}", f"requests {before + 1}"]
        assert [texts(response, 3) for response in responses] == [expected] * 5


def test_sync_view_that_waits_for_redis_holds_up_no_stream(redis: RedisServer, database: str) -> None:
    """The worker has one thread for requests. The event comes while this waits, from another process."""
    env = {"REDIS": redis.url, "DATABASE": database}
    with (
        Server("sync", "tests.apps.servers.drivers:app", env=env) as server,
        streaming(server, 5) as responses,
        Publisher(redis.url) as publisher,
        ThreadPoolExecutor(1) as thread,
    ):
        waiting = thread.submit(post, server, "/redis")
        until(lambda: redis.client().info("clients")["blocked_clients"] == 1, "the view that waits for Redis")
        publisher.publish("news", "meanwhile")
        assert [texts(response, 1) for response in responses] == [["meanwhile"]] * 5
        redis.client().rpush("numbers", 7)
        assert waiting.result() == {"number": 7}
        assert [texts(response, 1) for response in responses] == [["redis 7"]] * 5
