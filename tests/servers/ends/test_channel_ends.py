"""Channels that end, and runs, on every supported server."""

from __future__ import annotations

import pytest

from flask_sse_emitters.testing import decode
from tests.servers.kinds import on
from tests.support.client import Client, answer, connected, get, new_app, new_name, post
from tests.support.servers import Server
from tests.support.waiting import until

END = b"event: ~end\nid: ~end\ndata:\n\n"


@pytest.fixture(scope="module")
def path(server: Server) -> str:
    """An app with channels on the server of each kind."""
    return new_app(server, channels=True)


def rest(client: Client) -> list[str]:
    """Return the texts of what comes before the end, which is for good and clean."""
    body = client.rest()
    assert body.endswith(END)
    return [event.data for event in decode(body)[:-1]]


def test_channel_end_is_the_last_thing_that_its_clients_get(server: Server, path: str) -> None:
    name = new_name()
    with connected(server, f"{path}/events/{name}") as one, connected(server, f"{path}/events/{name}") as other:
        one.read_some()
        other.read_some()
        post(server, f"{path}/publish/{name}?times=3", "x")
        post(server, f"{path}/complete/{name}", "last")
        assert rest(one)[-4:] == rest(other)[-4:] == ["x", "x", "x", "last"]
    assert answer(server, "GET", f"{path}/events/{name}?lastEventId=~end") == (204, b"")
    with connected(server, f"{path}/events/{name}") as late:
        assert rest(late) == ["x", "x", "x", "last"]


@on("gevent", "gevent_off", "gthread", "sync", "werkzeug")
def test_run_is_read_by_who_began_it_and_by_who_comes_later(server: Server, path: str) -> None:
    name = new_name()
    expected = [*map(str, range(30)), "[DONE]"]
    with connected(server, f"{path}/ask/{name}?count=30&seconds=0.02") as first:
        with connected(server, f"{path}/events/{name}") as second:
            assert rest(second) == expected
        assert rest(first) == expected
    until(lambda: get(server, f"{path}/closed/{name}")["closed"], "the iterable to be closed")


@on("gevent", "gthread", "sync")
def test_run_that_is_cancelled_over_http_ends_its_streams(server: Server, path: str) -> None:
    name = new_name()
    with connected(server, f"{path}/ask/{name}?count=100000&seconds=0.05") as client:
        assert client.texts(2) == ["0", "1"]
        assert post(server, f"{path}/cancel/{name}") == {"was_running": True}
        assert "[DONE]" not in rest(client)
    until(lambda: get(server, f"{path}/closed/{name}")["closed"], "the iterable to be closed")
    assert post(server, f"{path}/cancel/{name}") == {"was_running": False}


@on("gevent", "gthread", "sync")
def test_run_goes_on_after_its_client_has_left(server: Server, path: str) -> None:
    name = new_name()
    with connected(server, f"{path}/ask/{name}?count=20&seconds=0.02") as client:
        assert client.texts(1) == ["0"]
    until(lambda: get(server, f"{path}/closed/{name}")["closed"], "the iterable to be closed")
    with connected(server, f"{path}/events/{name}") as late:
        assert rest(late) == [*map(str, range(20)), "[DONE]"]
