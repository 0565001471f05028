"""Servers whose threads hold the streams: when bytes arrive, how a client's leaving is noticed, and full threads."""

from __future__ import annotations

import signal
from contextlib import ExitStack, suppress
from http.client import HTTPException

import pytest

from tests.servers.kinds import OTHERS, each
from tests.support.client import connected, ended, get, new_app, new_name, post, stats
from tests.support.servers import Server
from tests.support.waiting import until
from tests.support.web.apache import Apache


def test_server_other_than_gunicorn_delivers_and_notices_the_end(other: Server) -> None:
    """uvicorn tells no application that a client has left: such a stream ends with its lifetime."""
    tells = other.kind != "a2wsgi"
    name, app = new_name(), new_app(other)
    with connected(other, f"{app}/numbered/{name}?heartbeat=0.05&timeout={60 if tells else 2}") as client:
        assert len(client.events(3)) == 3
        post(other, f"{app}/send/{name}", "more")
        assert client.texts(1) == ["more"]
        assert stats(other, app)["warnings"] == [], "a bridge says of itself that it runs several processes"
    assert ended(other, name, 2, app)["reason"] == ("DISCONNECTED" if tells else "TIMEOUT")


def test_other_server_passes_each_event_on_before_the_next_one_is_sent(other: Server) -> None:
    name, app = new_name(), new_app(other)
    with connected(other, f"{app}/silent/{name}") as client:
        assert client.read_some().startswith(b": stream open\n")
        for number in range(5):
            post(other, f"{app}/send/{name}", number)
            assert client.texts(1) == [str(number)]
        post(other, f"{app}/complete/{name}")
        assert client.rest() == b"", "a clean end"


@pytest.mark.parametrize("other", each("other", [kind for kind in OTHERS if kind != "a2wsgi"]), indirect=True)
def test_client_that_leaves_unnoticed_is_noticed_at_the_next_event(other: Server) -> None:
    """These servers show no client's socket: only a write fails, and the first one after the client left may not."""
    name, app = new_name(), new_app(other)
    with connected(other, f"{app}/numbered/{name}?heartbeat=0") as client:
        assert len(client.events(3)) == 3

    def sent() -> bool:
        post(other, f"{app}/send/{name}", "to nobody")
        return not get(other, f"{app}/state/{name}")["open"]

    until(sent, "the end")
    assert ended(other, name, 2, app)["reason"] == "DISCONNECTED"


def take_all_threads_twice(server: Server) -> None:
    """Have streams take all 8 threads, the last of them for a moment, until the log warns; and once more."""
    app = new_app(server)
    brief = f"{app}/silent/{new_name()}?timeout=0.5"
    warning = "8 streams are open, and each holds one of the 8 threads that this process has for requests"

    def is_warned_of() -> bool:
        with connected(server, brief) as client:
            client.rest()
        return warning in server.log

    with ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(connected(server, f"{app}/silent/{new_name()}?list={app[1:]}"))
        until(lambda: stats(server, app)["clients"] == 7, "the streams")
        assert stats(server, app)["warnings"] == []
        until(is_warned_of, "the warning")
        assert is_warned_of()
        assert [warning in each for each in stats(server, app)["warnings"]] == [True]
        assert server.log.count(warning) == 1
        post(server, f"{app}/lists{app}/complete")


def test_streams_that_take_all_threads_of_other_servers_are_warned_of_once(other: Server) -> None:
    take_all_threads_twice(other)


def test_streams_that_take_all_threads_of_gthread_are_warned_of_once() -> None:
    with Server("gthread_off", "tests.apps.handoff:app", arguments=["--threads", "8"]) as server:
        take_all_threads_twice(server)


def test_reload_of_apache_ends_streams_and_serves_their_clients_again() -> None:
    with Apache("tests.apps.servers.contract:app") as server:
        before = stats(server)["pid"]
        with connected(server, f"/numbered/{new_name()}") as client:
            assert len(client.events(3)) == 3
            server.signal(signal.SIGUSR1)  # as "apache2ctl graceful" does
            with suppress(HTTPException, ConnectionError):  # Apache may end the body as if it were complete
                assert b"retry:" not in client.rest()
        until(lambda: stats(server)["pid"] != before, "the next process")
        with connected(server, f"/numbered/{new_name()}") as client:
            assert len(client.events(3)) == 3
