"""``flask sse status``: the processes that serve an app, as they report themselves through Redis."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack

from flask_sse_emitters.testing import open_stream
from tests.brokers.commands import app_at, environment, invoked, run
from tests.support.redis_server import RedisServer
from tests.support.waiting import until


def test_status_shows_two_processes_with_clients_and_channels(server: RedisServer) -> None:
    """Two apps of this process stand for two processes, which ``test_processes`` shows in earnest."""
    with ExitStack() as stack:
        one, two, seen_by = (stack.enter_context(app_at(server.url)) for _ in range(3))
        orders = [
            stack.enter_context(open_stream(app.test_client(), "/events?channel=orders")) for app, _ in (one, one, two)
        ]
        stack.enter_context(open_stream(two[0].test_client(), "/events?channel=news"))
        one[1].publish("orders", "x")
        for stream in orders:
            until(stream.ready, "the event")
        until(lambda: sum(each.get("deliveries", 0) for each in seen_by[1].processes()) == 3, "reports of both")

        found = json.loads(invoked(server.url, "status", "--json").stdout)
        assert found["channels"] == {"orders": 3, "news": 1}
        assert [process["pid"] for process in found["processes"]] == [os.getpid()] * 2
        assert [found[name] for name in ("clients", "deliveries", "pending", "dropped")] == [4, 3, 0, 0]
        shown = run("status", env=environment(server.url))
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert shown.stdout.startswith(b"2 processes, 4 clients, 2 channels\n\n")
        assert shown.stdout.count(b" %d " % os.getpid()) == 2
        assert b"\norders         3\nnews           1\n" in shown.stdout


def test_status_without_serving_process_reports_none(server: RedisServer) -> None:
    result = invoked(server.url, "status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "No process has had a stream of a channel in the last seconds.\n"


def test_status_warns_of_read_only_broker(server: RedisServer) -> None:
    """Its processes cannot report this through the broker."""
    server.run("CONFIG SET maxmemory 1")
    for arguments in ([], ["--json"]):
        output = invoked(server.url, "status", *arguments).stdout
        assert "nothing can be published now" in output
        assert "Redis is full: raise its maxmemory" in output
    server.run("CONFIG SET maxmemory 0")
    assert "warning" not in invoked(server.url, "status").stdout
