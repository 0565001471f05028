"""Reload, and ``max_requests``: the streams of the old worker end in order, and their clients reconnect to the new."""

from __future__ import annotations

import json
import signal

import psutil
import pytest

from tests.servers.closing import closing_of
from tests.support.client import connected, post, stats
from tests.support.servers import Server
from tests.support.waiting import until


# The worker stops in the same way on all kinds; gunicorn's gevent_pywsgi counts no requests.
@pytest.mark.parametrize("kind", ["gevent", "gthread"])
@pytest.mark.parametrize("cause", ["SIGHUP", "max_requests"])
def test_reload_ends_streams_of_old_worker_and_clients_reconnect_to_new(kind: str, cause: str) -> None:
    arguments = ["--graceful-timeout", "60", *(["--max-requests", "12"] if cause == "max_requests" else [])]
    with Server(kind, "tests.apps.channels:app", arguments=arguments) as server:
        with connected(server, "/events?channel=a") as client:
            old = stats(server)["pid"]
            first = post(server, "/publish/a", "old")["id"]
            if cause == "SIGHUP":
                server.signal(signal.SIGHUP)
            else:
                until(lambda: stats(server)["pid"] != old, "another worker")
            rest, _ = closing_of(client)
            assert b"id: %b\n" % first.encode() in rest
            until(lambda: not psutil.pid_exists(old), "the old worker's end")
        with connected(server, "/events?channel=a", headers={"Last-Event-ID": first}) as client:
            [gap] = client.events(1)
            assert (gap.event, json.loads(gap.data)["requested"]) == ("gap", first)
            post(server, "/publish/a", "new")
            assert client.texts(1) == ["new"]
        assert stats(server)["pid"] != old
