"""A reload of one worker on ``memory://``, and with named lists: connections stay, and so does all that is kept."""

from __future__ import annotations

import http.client
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.testing import decode
from tests.support.client import Client, connected, get, new_name, post
from tests.support.servers import Server
from tests.support.told import told
from tests.support.waiting import until

APP = "tests.apps.servers.moves_in_memory:app"

CLIENTS = 20


class Publisher:
    """Publishes numbers to a channel, one after the other. What fails amid a reload it tries again, with its key.

    :ivar ids: that it was told.
    """

    def __init__(self, server: Server, channel: str) -> None:
        self.ids: list[str] = []
        self._server = server
        self._channel = channel
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stops.set()
        self._thread.join()

    def await_more(self, count: int) -> None:
        wanted = len(self.ids) + count
        until(lambda: len(self.ids) >= wanted or not self._thread.is_alive(), f"{count} more events")
        assert len(self.ids) >= wanted

    def _run(self) -> None:
        while not self._stops.is_set():
            number = len(self.ids)
            path = f"/publish/{self._channel}?text={number}&key={quote(str(number))}"
            try:
                self.ids.append(str(post(self._server, path)["id"]))
            except (OSError, http.client.HTTPException):
                continue


class MembersAsked:
    """Asks again and again who is in a room, as one of its members.

    :ivar answers: each that was another one than before.
    """

    def __init__(self, server: Server, room: str) -> None:
        self.answers: list[list[str]] = []
        self._path = f"/events/{room}/members?user=ann"
        self._server = server
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._failure: AssertionError | None = None

    def __enter__(self) -> MembersAsked:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stops.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def await_answer(self, *members: str) -> None:
        until(lambda: self.answers[-1:] == [[*members]] or not self._thread.is_alive(), f"{members}")

    def _run(self) -> None:
        while not self._stops.wait(0.02):
            try:
                found = get(self._server, self._path)["members"]
            except (OSError, http.client.HTTPException):
                continue
            except AssertionError as failure:
                self._failure = failure
                return
            if self.answers[-1:] != [found]:
                self.answers.append(found)


@pytest.fixture(params=["sync", "gthread", "gevent"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, APP, arguments=["--graceful-timeout", "20"]) as server:
        yield server


def test_reload_on_memory_loses_no_event_and_no_connection_under_load(server: Server) -> None:
    """Every client gets every event once and in order, in one epoch; who comes back with an id of before is served."""
    name = new_name()
    with ExitStack() as stack, Publisher(server, name) as publisher:
        publisher.await_more(20)
        clients = [stack.enter_context(connected(server, f"/events/{name}")) for _ in range(CLIENTS)]
        for _ in range(2):
            publisher.await_more(20)
            reload(server)
        publisher.await_more(20)
        publisher.stop()
        ids = publisher.ids
        assert [Id(each) for each in ids] == [Id(f"{Id(ids[0]).epoch}-{n}") for n in range(1, len(ids) + 1)]
        for client in clients:
            events = up_to(client, ids[-1])
            assert [event.id for event in events] == ids[-len(events) :], "none is missing, and none came twice"
            assert [event.data for event in events] == [str(ids.index(str(event.id))) for event in events]
        back, first = come(stack, server, f"/events/{name}", headers={"Last-Event-ID": ids[4]})
        assert [event.id for event in (first, *up_to(back, ids[-1]))] == ids[5:]
        assert post(server, f"/publish/{name}?text=again&key=3")["id"] == ids[3], "its key is known"
    assert "Traceback" not in server.log


def test_reload_on_memory_keeps_a_channel_without_clients(server: Server) -> None:
    """Its events, its ids, and where it has ended."""
    name = new_name()
    first, second = (str(post(server, f"/publish/{name}?text={text}")["id"]) for text in ("first", "second"))
    before = get(server, "/stats")["pid"]
    server.signal(signal.SIGHUP)
    until(lambda: pid(server) not in (before, None), "a new worker")
    # Until it exits the former one is given clients, too, and may end their streams, with which they come back.
    until(lambda: not psutil.pid_exists(before), "the former worker to exit")
    with connected(server, f"/events/{name}", headers={"Last-Event-ID": first}) as client:
        assert [event.id for event in client.events(1)] == [second]
        assert post(server, f"/publish/{name}?text=third")["id"] == f"{Id(first).epoch}-3"
        assert client.texts(1) == ["third"]


def test_reload_on_memory_has_a_run_go_on_for_readers_of_both_workers(server: Server, tmp_path: Path) -> None:
    """The worker that stops goes on with it, and publishes in the one that stays."""
    name, gate = new_name(), tmp_path / "gate"
    post(server, f"/runs/{name}?file={gate}")
    with connected(server, f"/events/{name}") as before, ExitStack() as stack:
        assert before.texts(1) == ["first"]
        old = pid(server)
        server.signal(signal.SIGHUP)
        until(lambda: pid(server) not in (old, None), "a new worker")
        after, event = come(stack, server, f"/events/{name}")
        assert event.data == "first"
        gate.touch()
        rests = [decode(client.rest()) for client in (before, after)]
        assert [[event.data for event in rest] for rest in rests] == [["second", "third", ""]] * 2
        assert [event.id for event in rests[0]] == [event.id for event in rests[1]]


def test_reload_on_memory_tells_nothing_of_members_that_stay(server: Server) -> None:
    """Nor does a second one. Who has left just before it is told of as gone, and so is who leaves later."""
    room = f"room:{new_name()}"
    with ExitStack() as stack:
        ann, bob, cay = (
            stack.enter_context(connected(server, f"/events/{room}?user={user}")) for user in ("ann", "bob", "cay")
        )
        asked = stack.enter_context(MembersAsked(server, room))
        asked.await_answer("ann", "bob", "cay")
        before = len(asked.answers)
        cay.close()
        for _ in range(2):
            reload(server)
        asked.await_answer("ann", "bob")
        bob.close()
        asked.await_answer("ann")
        assert asked.answers[before - 1 :] == [["ann", "bob", "cay"], ["ann", "bob"], ["ann"]]
        with connected(server, f"/events?channel={room}&since=first&user=ann") as late:
            events = [late.events(5), ann.events(5)]
        assert [sorted(told(each)[:3]) for each in events] == [["+ann", "+bob", "+cay"]] * 2
        assert [told(each)[3:] for each in events] == [["-cay", "-bob"]] * 2
    assert "Traceback" not in server.log


def test_reload_keeps_the_streams_of_a_named_list(server: Server) -> None:
    """Those of a list without a name end, and are counted."""
    with connected(server, "/lists/chart") as chart, connected(server, "/lists/unnamed") as unnamed:
        assert post(server, "/lists/chart?text=before")["reached"] == 1
        reload(server)
        assert b"retry: " in unnamed.rest()
        until(lambda: post(server, "/lists/chart?text=after")["reached"] == 1, "the list to have it")
        events = [event.data for event in chart.events(2)]
        assert events == ["before", "after"]
        assert get(server, "/stats")["moved"]["in"] == 1


class Id(str):
    @property
    def epoch(self) -> str:
        return self.partition("-")[0]


def come(stack: ExitStack, server: Server, path: str, **options: Any) -> tuple[Client, Event]:
    """Return a client, which the stack closes, and its first event.

    It comes as a browser does: once more where its stream ends at once. gunicorn's gevent worker takes clients for up
    to a second after it was told to stop, and those that find their channel gone to the new worker are sent back.
    """

    def connect() -> tuple[Client, Event] | None:
        client = stack.enter_context(connected(server, path, **options))
        events = client.events(1)
        return (client, events[0]) if events else None

    found = until(connect, "a stream")
    assert found is not None
    return found


def up_to(client: Client, last: str) -> list[Event]:
    """Read a client's events up to that with this id."""
    events = client.events(1)
    while events[-1].id != last:
        events += client.events(1)
    return events


def reload(server: Server) -> None:
    """Reload, and wait until the new worker has the streams of the old one, and that has exited."""
    before = pid(server)
    server.signal(signal.SIGHUP)
    until(lambda: pid(server) not in (before, None), "a new worker")
    until(lambda: get(server, "/stats")["moved"]["in"] > 0, "streams to move")


def pid(server: Server) -> int | None:
    try:
        found: int = get(server, "/stats")["pid"]
    except (OSError, http.client.HTTPException):
        return None
    return found


#: Settings with which the first worker publishes, and then is told to stop before it has served: gunicorn has started
#: another one, and nothing is left of the sockets of this one, as gthread closes them.
STOPS_AT_ONCE = """
import os
import signal
import time
from pathlib import Path

def post_worker_init(worker):
    first = Path({file!r})
    if not first.exists():
        from tests.apps.servers.moves_in_memory import sse
        first.write_text(sse.publish("a", "first", key="k"))
        master = os.getppid()
        os.kill(master, signal.SIGHUP)
        while len(Path(f"/proc/{{master}}/task/{{master}}/children").read_text().split()) < 2:
            time.sleep(0.01)
        worker.sockets, worker.alive = [], False
"""


@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_reload_of_a_worker_that_has_not_served_keeps_its_channels(kind: str, tmp_path: Path) -> None:
    settings = tmp_path / "settings.py"
    settings.write_text(STOPS_AT_ONCE.format(file=str(tmp_path / "first")))
    arguments = ["--config", str(settings), "--graceful-timeout", "20", "--worker-class", kind]
    with Server(kind, APP, arguments=arguments) as server:
        again = post(server, "/publish/a?text=again&key=k")
        assert again["id"] == (tmp_path / "first").read_text()


def test_worker_without_streams_that_stops_says_nothing_of_moves() -> None:
    with Server("sync", APP) as server:
        post(server, f"/publish/{new_name()}?text=1")
        server.signal(signal.SIGTERM)
        until(lambda: server.has_exited, "the server to end")
        assert "the worker stops" not in server.log
