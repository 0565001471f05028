"""``processes()``: what each process reports of itself through Redis."""

from __future__ import annotations

import json
from contextlib import ExitStack

from flask_sse_emitters.testing import open_stream
from tests.brokers.commands import Listening, app_at
from tests.support.client import connected, get, post
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import until


def test_processes_show_each_others_figures(server: RedisServer) -> None:
    """A process that only listens has clients, and no figures."""
    env = {"CONFIG": json.dumps({"SSE_BROKER_URL": server.url, "SSE_HEARTBEAT": 0})}
    with ExitStack() as stack:
        _, sse = stack.enter_context(app_at(server.url))
        stack.enter_context(Listening(server, "a"))
        one, other = (
            stack.enter_context(Server(kind, "tests.apps.channels:app", env=env)) for kind in ("gevent", "gthread")
        )
        [first, *_] = [
            stack.enter_context(connected(http, f"/events?channel={channel}"))
            for http, channel in [(other, "a"), (one, "a"), (one, "b")]
        ]
        servers = {get(http, "/stats")["pid"]: http for http in (one, other)}
        until(lambda: {each.get("pid") for each in sse.processes()} == {*servers, None}, "all three")
        [listening] = [each for each in sse.processes() if "pid" not in each]
        assert listening["channels"] == {"a": 1}

        post(one, "/publish/a", "x")
        assert first.texts(1) == ["x"]
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


def test_processes_report_while_clients_connect_and_disconnect_all_the_time(server: RedisServer) -> None:
    with app_at(server.url) as (app, _), app_at(server.url) as (_, other):

        def has_reported() -> bool:
            with open_stream(app.test_client(), "/events?channel=a"):
                until(lambda: any(each["channels"] for each in other.processes()), "the client")
            until(lambda: not any(each["channels"] for each in other.processes()), "its end")
            return any(each.get("opened", 0) >= 3 for each in other.processes())

        until(has_reported, "a report of three streams")
