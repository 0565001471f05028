"""A process that may open no more descriptors: streams go on, and new clients wait or are refused cleanly."""

from __future__ import annotations

import http.client
import re
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import psutil
import pytest

from flask_sse_emitters import Publisher
from flask_sse_emitters.testing import read_events
from tests.faults.processes.process_servers import await_heartbeats, config, serving, worker_of
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import connected, get, post, slow_client
from tests.support.waiting import PATIENCE, until


@contextmanager
def no_descriptors(process: psutil.Process) -> Iterator[None]:
    """Let the process open no more descriptors: EMFILE, as if all were in use. Those that are open stay open."""
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)


def test_no_descriptors_open_streams_go_on_and_new_clients_wait() -> None:
    """Meanwhile the connection to Redis is lost as well, and cannot be made again: missed events come when it can."""
    with RedisServer() as redis, closing(Publisher(redis.url)) as publisher, ExitStack() as stack:
        settings = config(SSE_BROKER_URL=redis.url, SSE_HEARTBEAT=0.2)
        server = stack.enter_context(serving("gevent", env=settings))
        clients = [stack.enter_context(connected(server, "/events/a")) for _ in range(20)]
        first = publisher.publish("a", "before")
        assert all(client.texts(1) == ["before"] for client in clients)
        worker = worker_of(server)
        with no_descriptors(worker):
            began = time.monotonic()
            newcomer = stack.enter_context(slow_client(server, "/events/a", f"Last-Event-ID: {first}\r\n"))
            publisher.publish("a", "meanwhile")
            assert all(client.texts(1) == ["meanwhile"] for client in clients)
            redis.run("CLIENT KILL TYPE pubsub")
            publisher.publish("a", "undelivered")
            until(lambda: "degraded" in server.log, "the log to report that Redis is out of reach")
            for client in clients:
                await_heartbeats(client)
            until(lambda: server.log.count("[Errno 24]") > 6, "some attempts to accept")
            # gevent waits for a hundredth of a second, then for twice as long each time, up to one second.
            attempts, seconds = server.log.count("[Errno 24]"), time.monotonic() - began
            assert attempts < 20 + 2 * seconds, "Redis is tried once a second, too"
        assert all(client.texts(1) == ["undelivered"] for client in clients)
        response = stack.enter_context(http.client.HTTPResponse(newcomer))
        response.begin()
        assert [event.data for event in read_events(response, 2)] == ["meanwhile", "undelivered"]
        assert get(server, "/stats")["clients"] == 21


@pytest.mark.parametrize("kind", ["gthread", "gthread_off"])
def test_no_descriptors_gthread_worker_is_replaced(kind: str) -> None:
    """gunicorn's gthread worker ends if it has no descriptor for a client; its threads do not, so it is killed."""
    with RedisServer() as redis, closing(Publisher(redis.url)) as publisher, ExitStack() as stack:
        settings = config(SSE_BROKER_URL=redis.url, SSE_HEARTBEAT=0.2)
        server = stack.enter_context(serving(kind, env=settings, arguments=["--timeout", "2"]))
        client = stack.enter_context(connected(server, "/events/a"))
        first = publisher.publish("a", "before")
        assert client.texts(1) == ["before"]
        worker = worker_of(server)
        with no_descriptors(worker), slow_client(server, "/events/a", f"Last-Event-ID: {first}\r\n"):
            until(lambda: "[Errno 24]" in server.log, "the attempt to accept")
            if kind == "gthread":
                assert re.search(rb"retry: \d+\n\n\Z", client.rest()), "no thread holds up the process: it drains"
            else:
                await_heartbeats(client)
            worker.wait(PATIENCE)
        publisher.publish("a", "meanwhile")
        with connected(server, "/events/a", headers={"Last-Event-ID": first}) as again:
            assert again.texts(1) == ["meanwhile"]


def test_no_descriptors_first_stream_fails_and_leaves_nothing_behind() -> None:
    """The background thread needs some: where no stream may come from another worker, it begins with the first.

    The client has a connection already, so none has to be accepted.
    """
    with serving("gevent", env=config(SSE_MOVE="off")) as server:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/time")
            connection.getresponse().read()
            with no_descriptors(worker_of(server)):
                connection.request("GET", "/connect")
                assert connection.getresponse().status == 500
        assert "[Errno 24] Too many open files" in server.log
        with connected(server, "/connect") as client:
            post(server, "/send", "x")
            assert client.texts(1) == ["x"]
            stats = get(server, "/stats")
            assert (stats["clients"], stats["outlets"]) == (1, {"handed_off": 1, "server": 0})


def test_no_descriptors_unwatched_stream_is_served_and_logged() -> None:
    """A heartbeat notices that its client leaves; later clients, when there are descriptors, are watched."""
    settings = {**config(SSE_HEARTBEAT=0.1), "MADE_EARLY": "1"}
    with serving("gevent", env=settings) as server:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/time")
            connection.getresponse().read()
            with no_descriptors(worker_of(server)):
                connection.request("GET", "/connect")
                response = connection.getresponse()
                assert response.status == 200
                while b":\n\n" not in response.read1():
                    pass
            response.close()
            assert get(server, "/stats")["outlets"] == {"handed_off": 0, "server": 1}
        until(lambda: get(server, "/stats")["closed"] == {"disconnected": 1}, "its end")
        assert server.log.count("noticed at their next heartbeat only: [Errno 24]") == 1
        with connected(server, "/connect"):
            until(lambda: get(server, "/stats")["outlets"] == {"handed_off": 1, "server": 0}, "the next client")
        until(lambda: get(server, "/stats")["closed"] == {"disconnected": 2}, "its end")
