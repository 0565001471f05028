"""Who is here, on real workers that share a broker: one join and one leave of each visit, whatever happens."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException

import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.testing import read_events
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import Client, connected, get, new_name, post
from tests.support.told import SIGNS, told
from tests.support.waiting import PATIENCE, until
from tests.support.web.workers_server import WorkersServer, connect_to_each_worker

#: A process counts as dead after 9 seconds.
OUTAGE_SECONDS = 11.0


@contextmanager
def workers(url: str, kind: str = "gthread", **config: object) -> Iterator[WorkersServer]:
    env = {"CONFIG": json.dumps({"SSE_BROKER_URL": url, "SSE_HEARTBEAT": 0.2, **config})}
    with WorkersServer(kind, "tests.apps.brokers.members:app", 2, env=env) as http:
        yield http


def history(http: WorkersServer, room: str) -> list[str]:
    """Return all that was told in a room, as in ``+ann`` and ``-ann``. A broker that has lost all may cause a gap.

    A worker that has not noticed that yet begins a stream in the log that is lost, and ends it: then it is read anew.
    """
    end = new_name()
    post(http, f"/publish/{room}", end)
    while True:
        found: list[Event] = []
        with connected(http, f"/events?channel={room}&since=first") as client:
            while more := read_events(client.response, 1):
                found += more
                if more[0].data == end:
                    return told(event for event in found if event.event in SIGNS)


def members(http: WorkersServer, room: str) -> list[str]:
    found: list[str] = get(http, f"/events/{room}/members")["members"]
    return found


def has_member(http: WorkersServer, room: str, user: str) -> bool:
    return user in members(http, room)


def visit(stack: ExitStack, http: WorkersServer, room: str, user: str) -> list[Client]:
    """Read a room in each worker."""
    return connect_to_each_worker(lambda: stack.enter_context(connected(http, f"/events/{room}?user={user}")))


@contextmanager
def reconnecting(http: WorkersServer, path: str) -> Iterator[None]:
    """Read a path as a page does, which comes again whenever its stream has ended."""
    is_over = threading.Event()

    def read() -> None:
        while not is_over.wait(0.05):
            with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", http.port, PATIENCE)) as client:
                client.request("GET", path)
                with client.getresponse() as response:
                    while response.read1() and not is_over.is_set():  # heartbeats, at least
                        pass

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(PATIENCE)


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
def test_visit_in_every_worker_has_one_join_and_one_leave(scheme: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue("server").url if scheme == "redis" else request.getfixturevalue("database")
    with workers(url, SSE_RETRY=500) as http, ExitStack() as stack:
        room = f"room-{new_name()}"
        visit(stack, http, room, "bob")
        until(lambda: members(http, room) == ["bob"], "bob")
        with ExitStack() as ann:
            visit(ann, http, room, "ann")
            until(lambda: members(http, room) == ["ann", "bob"], "both")
        for _ in range(3):  # as a page that is reloaded
            with connected(http, f"/events/{room}?user=ann"):
                pass
        until(lambda: members(http, room) == ["bob"], "bob alone")
        until(lambda: history(http, room) == ["+bob", "+ann", "-ann"], "one visit of each")


def test_members_of_a_killed_worker_leave_once_unless_they_came_back(server: RedisServer) -> None:
    with workers(server.url, "gevent", SSE_RETRY=1000) as http, ExitStack() as stack:
        room = f"room-{new_name()}"
        anonymous = visit(stack, http, room, "")
        ann = stack.enter_context(connected(http, f"/events/{room}?user=ann"))
        killed = ann.response.headers["X-Worker"]
        others = [each for each in anonymous if each.response.headers["X-Worker"] != killed]
        assert told(others[0].events(1)) == ["+ann"]
        while True:
            bob = stack.enter_context(connected(http, f"/events/{room}?user=bob"))
            if bob.response.headers["X-Worker"] == killed:
                break
        until(lambda: members(http, room) == ["ann", "bob"], "both")
        [worker] = [each for each in http.workers if str(each.pid) == killed]
        worker.send_signal(signal.SIGKILL)
        with reconnecting(http, f"/events/{room}?user=bob"):
            assert told(others[0].events(2)) == ["+bob", "-ann"]
            assert members(http, room) == ["bob"]
            assert history(http, room) == ["+ann", "+bob", "-ann"]


def test_members_stay_over_a_reload_of_all_workers(server: RedisServer) -> None:
    """Those whose clients come back; who does not, leaves."""
    with workers(server.url, SSE_RETRY=1000, SSE_DRAIN_SECONDS=0.2) as http, ExitStack() as stack:
        room = f"room-{new_name()}"
        for user in ("ann", "bob"):
            stack.enter_context(reconnecting(http, f"/events/{room}?user={user}"))
            until(partial(has_member, http, room, user), "the member")
        cay = stack.enter_context(connected(http, f"/events/{room}?user=cay"))
        until(lambda: members(http, room) == ["ann", "bob", "cay"], "cay")
        before = {worker.pid for worker in http.workers}
        http.signal(signal.SIGHUP)
        cay.rest()
        until(lambda: not before & {worker.pid for worker in http.workers}, "other workers")
        until(lambda: history(http, room) == ["+ann", "+bob", "+cay", "-cay"], "what was told")
        assert members(http, room) == ["ann", "bob"]


def test_members_are_told_afresh_after_redis_has_lost_all(server: RedisServer) -> None:
    """In silence, but for those who come back to another process meanwhile. From then on it is as before."""
    with workers(server.url, SSE_RETRY=1000) as http, ExitStack() as stack:
        room = f"room-{new_name()}"
        stack.enter_context(reconnecting(http, f"/events/{room}?user=bob"))
        with reconnecting(http, f"/events/{room}?user=ann"):
            until(lambda: members(http, room) == ["ann", "bob"], "both")
            server.kill()
            server.start()
            until(lambda: members_if_known(http, room) == ["ann", "bob"], "both again")
        until(lambda: members(http, room) == ["bob"], "bob alone")
        with connected(http, f"/events/{room}?user=cay"):
            until(lambda: "+cay" in history(http, room), "cay to be told of")
        until(lambda: "-cay" in history(http, room), "that cay has left to be told")
        until(lambda: members(http, room) == ["bob"], "bob alone, for good")


def test_members_stay_while_redis_stands_still(server: RedisServer) -> None:
    """For longer than a process counts as alive. Who comes and goes meanwhile is told afterwards."""
    with workers(server.url, SSE_RETRY=100, SSE_PUBLISH_SECONDS=0.5) as http, ExitStack() as stack:
        room = f"room-{new_name()}"
        visit(stack, http, room, "bob")
        with ExitStack() as gone:
            visit(gone, http, room, "ann")
            until(lambda: history(http, room) == ["+bob", "+ann"], "both to be told of: a worker knows its own before")
            server.signal(signal.SIGSTOP)
        visit(stack, http, room, "cay")
        resumes_at = time.monotonic() + OUTAGE_SECONDS
        until(lambda: time.monotonic() > resumes_at, "the end of the outage")
        server.signal(signal.SIGCONT)
        until(lambda: members_if_known(http, room) == ["bob", "cay"], "who is here now")
        until(lambda: len(history(http, room)) == 4, "what was told")
        assert sorted(history(http, room)) == ["+ann", "+bob", "+cay", "-ann"]


def members_if_known(http: WorkersServer, room: str) -> list[str]:
    """Return the members; none where the broker is away."""
    with suppress(RuntimeError, ValueError, AssertionError, OSError):
        return members(http, room)
    return []
