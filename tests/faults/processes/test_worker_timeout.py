"""A view that blocks for longer than gunicorn's ``timeout``: what becomes of its worker, and of the streams there."""

from __future__ import annotations

import http.client
import re
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import psutil
import pytest

from flask_sse_emitters import Publisher
from flask_sse_emitters.testing import decode
from tests.faults.processes.process_servers import config, serving, worker_of
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import Client, answer, connected, stats
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

#: Seconds without a sign of life of a worker, after which gunicorn stops it.
TIMEOUT = 3


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as redis:
        yield redis


@pytest.fixture
def publisher(redis: RedisServer) -> Iterator[Publisher]:
    redis.renew()
    with closing(Publisher(redis.url)) as publisher:
        yield publisher


@contextmanager
def streaming(kind: str, redis: RedisServer, publisher: Publisher) -> Iterator[tuple[Server, list[Client], str]]:
    """Serve some clients; yield the server, the clients, and the id of their first event."""
    settings = config(SSE_BROKER_URL=redis.url, SSE_RETRY=1000)
    with serving(kind, env=settings, arguments=["--timeout", str(TIMEOUT)]) as server, ExitStack() as stack:
        clients = [stack.enter_context(connected(server, "/events/a")) for _ in range(5)]
        until(lambda: stats(server)["outlets"] == {"handed_off": 5, "server": 0}, "the hand-offs")
        first = publisher.publish("a", "first")
        assert [client.texts(1) for client in clients] == [["first"]] * 5
        yield server, clients, first


@contextmanager
def blocking(server: Server, path: str) -> Iterator[Future[tuple[int, bytes]]]:
    """Have a view block; yield what will be its answer."""
    with ThreadPoolExecutor(1) as thread:
        answered = thread.submit(answer, server, "POST", path)
        until(lambda: "the view blocks" in server.log, "the view to block")
        yield answered


def check_reconnect(server: Server, old: psutil.Process, publisher: Publisher, missed: dict[str, list[str]]) -> None:
    """Check that clients with these positions get what they missed of another worker, and then what is new."""
    old.wait(PATIENCE)
    with ExitStack() as stack:
        clients = [
            (stack.enter_context(connected(server, "/events/a", headers={"Last-Event-ID": position})), texts)
            for position, texts in missed.items()
        ]
        publisher.publish("a", "later")
        for client, texts in clients:
            assert client.response.headers["X-Worker"] != str(old.pid)
            assert client.texts(len(texts) + 1) == [*texts, "later"]


@pytest.mark.parametrize(("kind", "how"), [("sync", "in-c"), ("gthread", "in-c-with-pythons-lock")])
def test_worker_timeout_kills_a_hanging_worker_and_clients_miss_nothing(
    kind: str, how: str, redis: RedisServer, publisher: Publisher
) -> None:
    """The worker cannot even handle gunicorn's SIGABRT, so SIGKILL follows. No client mistakes that for an end."""
    with streaming(kind, redis, publisher) as (server, clients, first):
        old = worker_of(server)
        with blocking(server, f"/block/{how}") as answered:
            publisher.publish("a", "meanwhile")
            missed: dict[str, list[str]] = {}
            for client in clients:
                with pytest.raises(http.client.IncompleteRead) as cut:
                    client.rest()
                received = decode(cut.value.partial)
                missed[str(received[-1].id) if received else first] = ["meanwhile"][len(received) :]
            assert isinstance(answered.exception(), ConnectionError)
        assert "WORKER TIMEOUT" in server.log
        check_reconnect(server, old, publisher, missed)


def test_worker_timeout_amid_a_view_in_python_ends_streams_in_order(redis: RedisServer, publisher: Publisher) -> None:
    """The worker handles SIGABRT, so the view fails, and the worker ends its streams as it exits."""
    with streaming("sync", redis, publisher) as (server, clients, _):
        old = worker_of(server)
        with blocking(server, f"/block/in-python?seconds={PATIENCE}") as answered:
            last = publisher.publish("a", "meanwhile")
            until(lambda: "WORKER TIMEOUT" in server.log, "the timeout")
            server.signal(signal.SIGSTOP)  # else it would kill the worker a second later, however slow this machine is
            for client in clients:
                rest = client.rest()
                assert [event.data for event in decode(rest)] == ["meanwhile"]
                assert re.search(rb"retry: \d+\n\n\Z", rest)
                client.close()
            status, _ = answered.result()
            assert status == 500
        until(lambda: old.status() == psutil.STATUS_ZOMBIE, "the worker to exit by itself")
        server.signal(signal.SIGCONT)
        check_reconnect(server, old, publisher, {last: []})


def test_worker_timeout_of_gthread_counts_no_view_that_blocks(redis: RedisServer, publisher: Publisher) -> None:
    """Its main thread shows that the worker lives, whatever the threads for requests do."""
    with streaming("gthread", redis, publisher) as (server, clients, _):
        with blocking(server, f"/block/in-python?seconds={2 * TIMEOUT}") as answered:
            publisher.publish("a", "meanwhile")
            assert [client.texts(1) for client in clients] == [["meanwhile"]] * 5
            assert answered.result() == (200, b"{}\n")
        publisher.publish("a", "later")
        assert [client.texts(1) for client in clients] == [["later"]] * 5
        assert "WORKER TIMEOUT" not in server.log
