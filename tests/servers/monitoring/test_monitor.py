"""The monitor on real servers: alone, beside another process, in an outage of their broker, and at shutdown."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, get_args

import pytest

from tests.support.brokers.shared_broker import SharedBroker, shared_broker
from tests.support.client import Client, connected, new_name, post
from tests.support.servers import Server
from tests.support.waiting import until

APP = "tests.apps.monitor:app"

GRACEFUL = ["--graceful-timeout", "60"]


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


def has_come(monitor: Client, name: str) -> bool:
    return name in monitor.events(1)[0].data


@pytest.mark.parametrize("broker", get_args(SharedBroker))
def test_monitor_sees_processes_sharing_a_broker_and_its_outage(broker: SharedBroker) -> None:
    with shared_broker(broker) as (running, url), ExitStack() as stack:
        env = {"CONFIG": json.dumps({"SSE_BROKER_URL": url})}
        servers = [stack.enter_context(Server(kind, APP, env=env)) for kind in ("gevent", "gthread")]
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
            post(other, "/publish/orders", name)
            until(partial(has_come, monitor, name), "the event of the other process")
        running.kill()
        for monitor in monitors:
            received = figures(
                monitor, lambda received: received["broker"]["state"] == "degraded", "the broker's outage"
            )
            assert received["broker"]["error"]
            assert not received["sees_all"]
            assert [each["clients"] for each in received["processes"]] == [2]
        running.start()
        for monitor in monitors:
            figures(
                monitor,
                lambda received: received["broker"]["state"] == "ok" and received["sees_all"],
                "the broker's recovery",
            )


def test_monitor_gets_figures_and_ends_at_shutdown() -> None:
    """On all servers at once, because figures come once a second. Only workers end their streams at shutdown."""
    with ExitStack() as stack:
        servers = {
            kind: stack.enter_context(Server(kind, APP, arguments=arguments))
            for kind, arguments in {"gevent": GRACEFUL, "gthread": GRACEFUL, "werkzeug": []}.items()
        }
        monitors = {
            kind: stack.enter_context(connected(server, "/sse-monitor/stream")) for kind, server in servers.items()
        }
        with ExitStack() as clients:
            for kind, monitor in monitors.items():
                assert monitor.response.headers["Content-Type"].startswith("text/event-stream")
                clients.enter_context(connected(servers[kind], "/events?channel=orders"))
            for kind, monitor in monitors.items():
                figures(monitor, lambda received: received["point"]["clients"] == 1, f"the client of {kind}")
        for kind, monitor in monitors.items():
            figures(monitor, lambda received: received["ends"]["DISCONNECTED"] == 1, f"the end of the client of {kind}")
        for kind in ("gevent", "gthread"):
            servers[kind].signal(signal.SIGTERM)
        for kind in ("gevent", "gthread"):
            assert re.search(rb"retry: \d+\n\n\Z", monitors[kind].rest()), kind
