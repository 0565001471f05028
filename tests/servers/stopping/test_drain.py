"""Drain: what the streams of an app get that shuts down, and what new clients get meanwhile."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from tests.servers.kinds import on
from tests.servers.stopping.closing import closing_of, fill, read_to_the_end
from tests.support.client import connected, new_app, post, slow_client, stats
from tests.support.servers import Server
from tests.support.waiting import until

on_gunicorn = on("gevent", "gevent_off", "gthread", "gthread_off", "gevent_pywsgi")

#: Longer than a test waits.
ENDLESS = 300


@on_gunicorn
def test_drain_ends_pending_streams_and_shutdown_call_then_returns(server: Server) -> None:
    app = new_app(server, channels=True, SSE_DRAIN_SECONDS=ENDLESS)
    with connected(server, f"{app}/events?channel=a") as client, ThreadPoolExecutor(1) as thread:
        post(server, f"{app}/publish/a", "last")
        stopping = thread.submit(post, server, f"{app}/shutdown")
        rest, _ = closing_of(client)
        assert rest.endswith(b"data: last\n\n")
        client.close()
        found = stopping.result()
    assert (found["clients"], found["closed"], found["draining"]) == (0, {"shutdown": 1}, True)


@on_gunicorn
def test_drain_ends_a_stream_that_connects_at_once_with_retry(server: Server) -> None:
    app = new_app(server, channels=True, SSE_RETRY=1000, SSE_DRAIN_SECONDS=1)
    with closing(slow_client(server, f"{app}/connect")), ThreadPoolExecutor(1) as thread:
        fill(server, 1, app)
        stopping = thread.submit(post, server, f"{app}/shutdown")
        until(lambda: stats(server, app)["draining"], "the drain to begin")
        for path in ["/events?channel=a", "/connect"] * 5:
            with connected(server, app + path) as late:
                match = re.fullmatch(rb"retry: (\d+)\n\n(id: \S+\n\n)?", late.rest())
                assert match is not None
                assert 500 <= int(match[1]) <= 2000
        assert stopping.result()["closed"] == {"shutdown": 1}, "the client that reads nothing was cut"
    assert stats(server, app)["clients"] == 0


@on("gevent", "gthread")
def test_drain_completes_a_replay_in_progress(server: Server) -> None:
    """A client that catches up gets all events published before the shutdown."""
    app = new_app(server, channels=True, SSE_HISTORY=1000, SSE_DRAIN_SECONDS=ENDLESS)
    with connected(server, f"{app}/connect"):
        ids = [post(server, f"{app}/publish/a", f"{number} " + "x" * 50_000)["id"] for number in range(300)]
    path, since = f"{app}/events?channel=a", f"Last-Event-ID: {ids[0]}\r\n"
    with closing(slow_client(server, path, since)) as raw, ThreadPoolExecutor(1) as thread:
        until(lambda: stats(server, app)["clients"] == 1, "the client")
        stopping = thread.submit(post, server, f"{app}/shutdown")
        until(lambda: stats(server, app)["draining"], "the drain to begin")
        rest = read_to_the_end(raw)
        raw.close()
        stopping.result()
    assert [each.decode() for each in re.findall(rb"\nid: (\S+)\n", rest)] == ids[1:]
    assert re.search(rb"retry: \d+\n\n\r\n0\r\n\r\n\Z", rest)
