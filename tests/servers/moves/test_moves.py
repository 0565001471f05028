"""Streams move from a worker that stops to one that stays: their clients keep the connection, and miss nothing."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from flask_sse_emitters import Event, Publisher
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import Client, connected, get
from tests.support.servers import Server
from tests.support.waiting import until

KINDS = ["gevent", "gthread", "sync"]


class Site:
    """A server whose app may be given new code, and its Redis."""

    def __init__(self, kind: str, redis: RedisServer, file: Path, arguments: tuple[str, ...], config: Any) -> None:
        self._file = file
        self._config = {"SSE_BROKER_URL": redis.url, **config}
        self.publisher = Publisher(redis.url)
        self.write()
        self.server = Server(
            kind,
            "tests.apps.servers.moving:app",
            env={"MOVING": str(file)},
            arguments=["--graceful-timeout=30", *arguments],
        )

    def write(self, config: Any = None, **code: Any) -> None:
        self._file.write_text(json.dumps({"config": {**self._config, **(config or {})}, **code}))

    def reload(self) -> None:
        """Have new workers take over, and wait until the old ones have ended."""
        old = {worker.pid for worker in self.master.children()}
        self.server.signal(signal.SIGHUP)
        until(lambda: not old & {worker.pid for worker in self.master.children()}, "the old workers to end")

    @property
    def master(self) -> psutil.Process:
        return psutil.Process(self.server.pid)

    def moved(self) -> dict[str, Any]:
        """Return what moved into the worker that answers; with one worker, that is all."""
        found: dict[str, Any] = get(self.server, "/stats")["moved"]
        return found

    def moved_away(self) -> list[dict[str, Any]]:
        """Return the same of each worker that has stopped, as it was at its exit."""
        return [json.loads(found) for found in re.findall(r"INFO:root:moved: (.*)", self.server.log)]


Make = Callable[..., Site]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())

        def make(kind: str, *arguments: str, **config: Any) -> Site:
            site = Site(kind, redis, tmp_path / "code.json", arguments, config)
            stack.callback(site.publisher.close)
            stack.enter_context(site.server)
            return site

        yield make


@contextmanager
def reading(site: Site, path: str, **headers: str) -> Iterator[Client]:
    with connected(site.server, path, headers=headers) as client:
        yield client


def texts(events: list[Event]) -> list[str]:
    return [event.data for event in events if event.data is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_reloads_move_streams_and_each_event_arrives_once_in_order(kind: str, make: Make) -> None:
    site = make(kind, "--workers=2")
    with ExitStack() as stack:
        paths = ["/events/public/a", "/events?channel=public/a&channel=public/b", "/events/private"] * 3
        clients = [stack.enter_context(reading(site, path, User="alice")) for path in paths]
        numbers = 0
        for _ in range(2):
            for number in range(numbers, numbers + 20):
                site.publisher.publish_many([(name, str(number)) for name in ("public/a", "private")])
            numbers += 20
            site.reload()
        site.publisher.publish("public/b", "last")
        for path, client in zip(paths, clients, strict=True):
            wanted = [str(number) for number in range(numbers)] + ["last"] * ("public/b" in path)
            assert texts(client.events(len(wanted))) == wanted
    assert "streams end within" not in site.server.log
    assert "Traceback" not in site.server.log


@pytest.mark.parametrize("kind", KINDS)
def test_stream_that_has_something_here_stays_and_ends_as_without_a_move(kind: str, make: Make) -> None:
    site = make(kind)
    kept = ["callbacks", "list", "attributes"]
    with ExitStack() as stack:
        clients = [stack.enter_context(reading(site, f"/kept/{what}")) for what in kept]
        mover = stack.enter_context(reading(site, "/events/public/a"))
        site.reload()
        for client in clients:
            assert b"retry: " in client.rest()
        site.publisher.publish("public/a", "x")
        assert mover.texts(1) == ["x"]
        found = get(site.server, "/stats")
        assert (found["moved"], found["opened"]) == ({"in": 1, "out": 0, "refused": {}}, 0)
        until(lambda: get(site.server, "/stats")["signals"] == ["in True"], "the signal")
    assert site.moved_away() == [{"in": 0, "out": 1, "refused": dict.fromkeys(kept, 1)}]


def test_streams_do_not_move_where_that_is_off(make: Make) -> None:
    site = make("gthread", SSE_MOVE="off")
    with reading(site, "/events/public/a") as client:
        site.reload()
        assert b"retry: " in client.rest()
    assert site.moved() == {"in": 0, "out": 0, "refused": {}}


def test_streams_do_not_move_to_code_with_other_settings(make: Make) -> None:
    site = make("gevent")
    with reading(site, "/events/public/a") as client:
        site.write({"SSE_TIMEOUT": 7})
        site.reload()
        assert b"retry: " in client.rest()
    assert site.moved() == {"in": 0, "out": 0, "refused": {}}
    assert site.moved_away() == [{"in": 0, "out": 0, "refused": {"settings": 1}}]
    assert "SSE_TIMEOUT is 1800.0 there, and 7.0 here" in site.server.log


@pytest.mark.parametrize("kind", KINDS)
def test_new_code_is_asked_who_may_still_read(kind: str, make: Make) -> None:
    site = make(kind)
    with reading(site, "/events/private", User="alice") as alice, reading(site, "/events/private", User="bob") as bob:
        site.write(denied=["bob"])
        site.reload()
        assert b"retry: " in bob.rest()
        site.publisher.publish("private", "x")
        assert alice.texts(1) == ["x"]
        assert site.moved()["in"] == 2


def test_stream_beyond_a_limit_of_the_worker_that_stays_ends(make: Make) -> None:
    """Each of two workers may have one, and has it."""
    site = make("sync", "--workers=2", SSE_MAX_CLIENTS=1)
    with ExitStack() as stack:
        clients: dict[int, int] = {}

        def have_one_each() -> bool:
            stats = get(site.server, "/stats")
            clients[stats["pid"]] = stats["clients"]
            if not stats["clients"]:
                stack.enter_context(reading(site, "/events/public/a"))
            return sorted(clients.values()) == [1, 1]

        until(have_one_each, "each worker to have a client")
        site.server.signal(signal.SIGTTOU)  # one worker less
        until(lambda: "limit: 1" in site.server.log, "a stream to be refused")
        until(lambda: len(site.master.children()) == 1, "its worker to end")
        assert get(site.server, "/stats")["clients"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_worker_that_reaches_max_requests_gives_its_streams_to_another(kind: str, make: Make) -> None:
    site = make(kind, "--workers=2", "--max-requests=12")
    with ExitStack() as stack:
        clients = [stack.enter_context(reading(site, "/events/public/a")) for _ in range(4)]
        first = {worker.pid for worker in site.master.children()}
        while "Autorestarting" not in site.server.log:
            get(site.server, "/stats")
        until(lambda: first != {worker.pid for worker in site.master.children()}, "a worker to be replaced")
        site.publisher.publish("public/a", "x")
        assert [client.texts(1) for client in clients] == [["x"]] * 4


def test_server_that_stops_waits_for_no_other_worker(make: Make) -> None:
    site = make("gthread", "--workers=2")
    with reading(site, "/events/public/a") as client:
        site.server.signal(signal.SIGTERM)
        assert b"retry: " in client.rest()
        until(lambda: site.server.has_exited, "the server to end")
    assert "streams that have moved to other workers: 0, that end: 1 (no worker: 1)" in site.server.log
