"""The monitor on real servers: alone, beside another process, in an outage of Redis, and at shutdown."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from tests.support.client import Client, connected, new_name, post
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import until


def figures(client: Client, wanted: Callable[[Any], bool], what: str) -> Any:
    """Return the first figures that satisfy ``wanted``."""
    said: list[Any] = []

    def look() -> bool:
        [event] = client.events(1)
        if event.event == "figures":
            said[:] = [json.loads(event.data)]
        return bool(said) and wanted(said[0])

    until(look, what)
    return said[0]


@contextmanager
def served(kind: str, **env: str) -> Iterator[Server]:
    with Server(kind, "tests.apps.monitor:app", env=env) as server:
        yield server
        server.kill()  # a clean shutdown takes seconds


def has_come(monitor: Client, name: str) -> bool:
    return name in monitor.events(1)[0].data


def test_monitor_sees_processes_sharing_redis_and_its_outage() -> None:
    with RedisServer() as redis, ExitStack() as stack:
        servers = [stack.enter_context(served(kind, SSE_BROKER_URL=redis.url)) for kind in ("gevent", "gthread")]
        for server in servers:
            for _ in range(2):
                stack.enter_context(connected(server, "/events?channel=orders"))
        monitors = [stack.enter_context(connected(server, "/sse-monitor/stream?channel=orders")) for server in servers]

        def sees_all(received: Any) -> bool:
            clients = {channel["name"]: channel["clients"] for channel in received["channels"]}
            return clients == {"orders": 4} and received["point"]["clients"] == 4 and len(received["processes"]) == 2

        for monitor in monitors:
            received = figures(monitor, sees_all, "both processes, without the other's monitor")
            assert received["channels"][0]["name"] == "orders"
            assert received["channels"][0]["clients"] == 4
            assert (received["is_shared"], received["sees_all"], received["monitors"]) == (True, True, 1)
        for monitor, other in zip(monitors, reversed(servers), strict=True):
            name = new_name()
            post(other, "/events-of/orders", name)
            until(partial(has_come, monitor, name), "the event of the other process")
        redis.kill()
        for monitor in monitors:
            received = figures(
                monitor, lambda received: received["broker"]["state"] == "degraded", "the broker's outage"
            )
            assert received["broker"]["error"]
            assert not received["sees_all"]
            assert [each["clients"] for each in received["processes"]] == [2]
        redis.start()
        for monitor in monitors:
            figures(
                monitor,
                lambda received: received["broker"]["state"] == "ok" and received["sees_all"],
                "the broker's recovery",
            )


def assert_figures_arrive(server: Server, monitor: Client) -> None:
    assert monitor.response.headers["Content-Type"].startswith("text/event-stream")
    with connected(server, "/events?channel=orders"):
        figures(monitor, lambda received: received["point"]["clients"] == 1, "the client")
    figures(monitor, lambda received: received["ends"]["DISCONNECTED"] == 1, "the end of the client")


def test_monitor_on_threaded_server_gets_figures() -> None:
    with served("werkzeug") as server, connected(server, "/sse-monitor/stream") as monitor:
        assert_figures_arrive(server, monitor)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_monitor_on_worker_gets_figures_and_ends_at_shutdown(kind: str) -> None:
    with (
        Server(kind, "tests.apps.monitor:app", arguments=["--graceful-timeout", "60"]) as server,
        connected(server, "/sse-monitor/stream") as monitor,
    ):
        assert_figures_arrive(server, monitor)
        server.signal(signal.SIGTERM)
        assert re.search(rb"retry: \d+\n\n\Z", monitor.rest())
        server.kill()
