"""``processes()``: what each process reports of itself through Redis, and when it is forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from flask_sse_emitters.testing import open_stream
from tests.brokers.commands import Listening, app_at
from tests.support.client import connected, get, post
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import until


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_processes_show_each_others_figures_until_they_are_gone(redis: RedisServer) -> None:
    """A process that only listens has clients, and no figures."""
    env = {"CONFIG": json.dumps({"SSE_BROKER_URL": redis.url, "SSE_HEARTBEAT": 0})}
    with ExitStack() as stack:
        _, sse = stack.enter_context(app_at(redis.url))
        listener = stack.enter_context(Listening(redis, "a"))
        one, other = (
            stack.enter_context(Server(kind, "tests.apps.channels:app", env=env)) for kind in ("gevent", "gthread")
        )
        [client, *_] = [
            stack.enter_context(connected(server, f"/events?channel={channel}"))
            for server, channel in [(other, "a"), (one, "a"), (one, "b")]
        ]
        servers = {get(server, "/stats")["pid"]: server for server in (one, other)}
        until(lambda: {each.get("pid") for each in sse.processes()} == {*servers, None}, "all three")
        [listening] = [each for each in sse.processes() if "pid" not in each]
        assert listening["channels"] == {"a": 1}
        listener.kill()  # its report holds for some seconds, in which the others are looked at

        post(one, "/publish/a", "x")
        assert client.texts(1) == ["x"]
        until(lambda: all(each.get("deliveries", 1) == 1 for each in sse.processes()), "their reports")
        found = {each["pid"]: each for each in sse.processes() if "pid" in each}
        channels = {servers[pid]: each["channels"] for pid, each in found.items()}
        assert channels == {one: {"a": 1, "b": 1}, other: {"a": 1}}
        for pid, each in found.items():
            own = get(servers[pid], "/stats")
            changing = {"broker", "pending", "since"}  # the app shows other values of these, or rounds them
            names = own.keys() & each.keys() - changing
            assert {name: each[name] for name in names} == {name: own[name] for name in names}
            assert {"clients", "opened", "closed", "bytes", "draining", "warnings"} <= each.keys()
            assert each["broker"]["state"] == "ok"
            assert 0 <= each["age"] < 12
        assert len({each["id"] for each in found.values()}) == 2

        until(lambda: {each.get("pid") for each in sse.processes()} == set(servers), "the killed one to be forgotten")
        for server in (one, other):
            server.kill()  # an orderly stop takes seconds


def test_processes_report_while_clients_connect_and_disconnect_all_the_time(redis: RedisServer) -> None:
    with app_at(redis.url) as (app, _), app_at(redis.url) as (_, other):

        def has_reported() -> bool:
            with open_stream(app.test_client(), "/events?channel=a"):
                until(lambda: any(each["channels"] for each in other.processes()), "the client")
            until(lambda: not any(each["channels"] for each in other.processes()), "its end")
            return any(each.get("opened", 0) >= 3 for each in other.processes())

        until(has_reported, "a report of three streams")
