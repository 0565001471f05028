"""What clients get on every supported server: the response, its events in order, heartbeats, and events of lists."""

from __future__ import annotations

import itertools
import json
import threading

import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.testing import decode
from tests.servers.kinds import on
from tests.support.client import Client, connected, get, new_name, post, state
from tests.support.servers import Server
from tests.support.waiting import until


def test_stream_preamble_is_sent_at_once(server: Server) -> None:
    with connected(server, f"/silent/{new_name()}") as client:
        assert client.response.status == 200
        first = client.read_some()
        assert first.startswith(b":")
        assert b"retry: 3000\n" in first


def test_stream_headers_are_those_of_an_event_stream(server: Server) -> None:
    with connected(server, f"/tuple/{new_name()}") as client:
        headers = client.response.headers
        assert headers.get_all("Content-Type") == ["text/event-stream"]
        assert headers.get_all("Cache-Control") == ["no-cache, no-transform"]
        assert headers.get_all("X-Accel-Buffering") == ["no"]
        assert headers.get_all("X-Foo") == ["bar"]
        assert headers.get_all("Transfer-Encoding") == ["chunked"]
        assert headers.get_all("Content-Length") is None


def test_stream_delivers_view_events_first_then_each_as_it_is_sent(server: Server) -> None:
    name = new_name()
    with connected(server, f"/numbered/{name}") as client:
        assert client.events(3) == [Event(str(n), event="number", id=str(n)) for n in range(3)]
        for number in range(5):
            assert post(server, f"/send/{name}", {"n": number}) == {"sent": True}
            assert [json.loads(text) for text in client.texts(1)] == [{"n": number}]
        assert state(server, name)["open"]


def test_stream_delivers_an_awkward_event_unchanged(server: Server) -> None:
    name, text = new_name(), "\u2028é\0\x85\n\n x: 😀" * 20_000
    with connected(server, f"/silent/{name}?max_pending=10") as client:
        assert post(server, f"/send/{name}", text) == {"sent": True}
        assert client.texts(1) == [text]


def test_heartbeats_are_sent_during_silence(server: Server) -> None:
    with connected(server, f"/silent/{new_name()}?heartbeat=0.1") as client:
        client.read_some()
        assert [client.read_some() for _ in range(3)] == [b":\n\n"] * 3


@on("gevent", "gevent_off", "gthread", "gevent_pywsgi")  # Werkzeug's server sends chunks here, too
def test_http_1_0_client_gets_the_stream_without_chunks(server: Server) -> None:
    name = new_name()
    with connected(server, f"/numbered/{name}", version=10) as client:
        assert client.response.headers.get("Transfer-Encoding") is None
        assert len(client.events(3)) == 3
        post(server, f"/send/{name}", "more")
        assert client.texts(1) == ["more"]
        post(server, f"/complete/{name}")
        assert client.rest() == b""


def test_last_event_id_is_what_the_client_sent(server: Server) -> None:
    name = new_name()
    with connected(server, f"/silent/{name}", headers={"Last-Event-ID": "é7".encode().decode("latin-1")}):
        assert state(server, name)["last_event_id"] == "é7"


@pytest.mark.parametrize("foreign", ["", "&foreign"])
def test_list_all_clients_get_all_events_in_one_order(foreign: str, server: Server) -> None:
    """8 threads send at once: those of the server's own kind, and real threads where its own are greenlets."""
    room = new_name()
    clients = [Client(server, f"/silent/{new_name()}?list={room}&max_pending=100000") for _ in range(20)]
    until(lambda: get(server, f"/lists/{room}") == {"count": 20}, "the clients")
    post(server, f"/lists/{room}/publish?threads=8&each=50&first=0{foreign}")
    post(server, f"/lists/{room}/complete")
    orders = [[event.data for event in decode(client.rest())] for client in clients]
    for client in clients:
        client.close()
    assert all(order == orders[0] for order in orders)
    assert len(orders[0]) == len(set(orders[0])) == 400
    for sender in range(8):
        own = [text for text in orders[0] if text.startswith(f"{sender}:")]
        assert own == [f"{sender}:{number}" for number in range(50)]


@on("gevent", "gthread")
def test_list_500_clients_connect_and_disconnect_while_8_threads_publish(server: Server) -> None:
    room = new_name()
    failures: list[BaseException] = []
    done = threading.Event()

    def come_and_go(count: int) -> None:
        try:
            for _ in range(count):
                with connected(server, f"/silent/{new_name()}?list={room}&max_pending=100000") as client:
                    texts = client.texts(10)
                    assert len(set(texts)) == 10
                    for sender in range(8):
                        own = [int(text.split(":")[1]) for text in texts if text.startswith(f"{sender}:")]
                        assert own == list(range(own[0], own[0] + len(own))) if own else True
        except BaseException as error:
            failures.append(error)

    def publish() -> None:
        try:
            for first in itertools.takewhile(lambda _: not done.is_set(), itertools.count(step=50)):
                post(server, f"/lists/{room}/publish?threads=8&each=50&first={first}")
        except BaseException as error:
            failures.append(error)

    visitors = [threading.Thread(target=come_and_go, args=(5,)) for _ in range(100)]
    publisher = threading.Thread(target=publish)
    for thread in (*visitors, publisher):
        thread.start()
    for thread in visitors:
        thread.join()
    done.set()
    publisher.join()
    assert failures == []
    until(lambda: get(server, f"/lists/{room}") == {"count": 0}, "the list to be empty")
