"""Streams that move to another worker, by each signal with which gunicorn replaces one."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from flask_sse_emitters import Publisher
from tests.support.board import config
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import Client, connected, get, new_name
from tests.support.servers import Server, bound
from tests.support.waiting import PATIENCE, until

KINDS = ["gevent", "gthread", "sync"]

#: One after the other.
RELOADS = int(os.environ.get("RELOADS") or 2)

pytestmark = pytest.mark.xdist_group("moves-redis")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as redis:
        yield redis


def serving(kind: str, redis: RedisServer, *arguments: str, workers: int = 1, **settings: Any) -> Server:
    more = ["--graceful-timeout", "30", "--workers", str(workers), *arguments]
    return Server(kind, "tests.apps.channels:app", env=config(redis, SSE_HEARTBEAT=15, **settings), arguments=more)


class Load:
    """Publishes numbers to a channel, one after the other, until it is told to stop."""

    def __init__(self, redis: RedisServer, channel: str) -> None:
        self.sent = 0
        self._publisher = Publisher(redis.url)
        self._channel = channel
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stops.wait(0.005):
            self._publisher.publish(self._channel, str(self.sent))
            self.sent += 1

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> list[str]:
        """Stop, and return all that was sent."""
        self._stops.set()
        self._thread.join()
        return [*map(str, range(self.sent))]


@contextmanager
def readers(server: Server, *paths: str) -> Iterator[list[Client]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connected(server, path)) for path in paths]


def children(server: Server) -> list[psutil.Process]:
    return psutil.Process(int(get(server, "/stats")["pid"])).parent().children()  # type: ignore[union-attr]


def until_gone(processes: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(processes, timeout=PATIENCE)
    assert not left, "the worker is to exit"


@contextmanager
def loaded(server: Server, redis: RedisServer) -> Iterator[list[Client]]:
    """Have clients of one channel and of two; at the end each must have had every event, once and in order."""
    name = new_name()
    one, two = f"/events/{name}", f"/events?channel={name}&channel={new_name()}"
    load = Load(redis, name)
    with readers(server, one, two, one, two) as clients:
        load.start()
        try:
            yield clients
            until(lambda at=load.sent: load.sent > at + 20, "more events")  # type: ignore[misc]
        finally:
            sent = load.stop()
        for client in clients:
            assert client.texts(len(sent)) == sent


def moved(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = get(server, "/stats")["moved"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_reloads_under_load_cost_no_client_its_connection_or_an_event(kind: str, redis: RedisServer) -> None:
    with serving(kind, redis) as server, loaded(server, redis):
        for _ in range(RELOADS):
            old = children(server)
            server.signal(signal.SIGHUP)
            until_gone(old)
        assert moved(server) == {"in": 4, "out": 0, "refused": {}}
        assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", KINDS)
def test_worker_one_too_many_gives_its_streams_to_the_other(kind: str, redis: RedisServer) -> None:
    with serving(kind, redis, workers=2) as server, loaded(server, redis):
        until(lambda: len(children(server)) == 2, "both workers")
        old = min(children(server), key=lambda each: each.create_time())
        server.signal(signal.SIGTTOU)
        until_gone([old])
        assert get(server, "/stats")["clients"] == 4
        assert "Traceback" not in server.log


class RebornServer(Server):
    """A gunicorn that can start another one (SIGUSR2): not with the descriptor of a socket, nor as ``python -m``."""

    def start(self) -> None:
        self.command[:3] = [sys.executable, str(Path(sys.executable).with_name("gunicorn"))]
        with bound(0) as free:
            port = free.getsockname()[1]
        self.env["GUNICORN_CMD_ARGS"] = f"--bind=127.0.0.1:{port}"
        super().start()
        self.port = port

        def answers() -> bool:
            with suppress(OSError):
                return bool(get(self, "/stats"))
            return False

        until(answers, "the server")


@pytest.mark.parametrize("kind", KINDS)
def test_new_gunicorn_gets_the_streams_of_the_old_one(kind: str, redis: RedisServer) -> None:
    env, arguments = config(redis, SSE_HEARTBEAT=15), ["--graceful-timeout", "30"]
    with RebornServer(kind, "tests.apps.channels:app", env=env, arguments=arguments) as server, loaded(server, redis):
        old = children(server)
        server.signal(signal.SIGUSR2)
        until(lambda: server.log.count("Booting worker") == 2, "the worker of the new gunicorn")
        server.signal(signal.SIGTERM)
        until_gone(old)
        assert moved(server) == {"in": 4, "out": 0, "refused": {}}
        assert "Traceback" not in server.log
