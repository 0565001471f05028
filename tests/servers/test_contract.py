"""The contract of streams on every supported server: real processes, real sockets."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import threading
import time
from contextlib import ExitStack

import httpx
import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.testing import decode
from tests.support.client import Client, answer_to_the_end, connected, ended, get, new_name, post, state
from tests.support.servers import SERVERS, Server
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.xdist_group("contract")

COMPLETION = "completion in contract"
TIMEOUT = "timeout in contract"
ERROR = "error in contract"


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


def test_stream_delivers_the_views_events_first_and_in_order(server: Server) -> None:
    with connected(server, f"/numbered/{new_name()}") as client:
        assert client.events(3) == [Event(str(n), event="number", id=str(n)) for n in range(3)]


def test_stream_delivers_each_event_as_it_is_sent(server: Server) -> None:
    name = new_name()
    with connected(server, f"/silent/{name}") as client:
        for number in range(5):
            assert post(server, f"/send/{name}", {"n": number}) == {"sent": True}
            assert [json.loads(text) for text in client.texts(1)] == [{"n": number}]
        assert state(server, name)["open"]


def test_stream_delivers_an_awkward_event_unchanged(server: Server) -> None:
    name, text = new_name(), "\u2028é\0\x85\n\n x: 😀" * 20_000
    with connected(server, f"/silent/{name}?max_pending=10") as client:
        assert post(server, f"/send/{name}", text) == {"sent": True}
        assert client.texts(1) == [text]


def test_complete_ends_the_body_cleanly_after_pending_events(server: Server) -> None:
    name = new_name()
    with connected(server, f"/numbered/{name}") as client:
        post(server, f"/send/{name}", "last words")
        post(server, f"/complete/{name}")
        assert [event.data for event in decode(client.rest())] == ["0", "1", "2", "last words"]
    assert ended(server, name, 1)["journal"] == [COMPLETION]
    assert state(server, name)["reason"] == "COMPLETED"


def test_complete_before_the_view_returns_still_delivers_the_events(server: Server) -> None:
    name = new_name()
    with connected(server, f"/completed/{name}") as client:
        assert [event.data for event in decode(client.rest())] == ["only this"]
    assert ended(server, name, 1)["journal"] == [COMPLETION]


def test_complete_with_error_ends_the_body_cleanly(server: Server) -> None:
    name = new_name()
    with connected(server, f"/numbered/{name}") as client:
        post(server, f"/fail/{name}")
        assert len(decode(client.rest())) == 3
    found = ended(server, name, 2)
    assert (found["reason"], found["error"]) == ("ERROR", "on purpose")
    assert found["journal"] == [ERROR, COMPLETION]


def test_timeout_ends_the_body_cleanly(server: Server) -> None:
    name = new_name()
    with connected(server, f"/numbered/{name}?timeout=1") as client:
        assert client.response.status == 200
        assert len(decode(client.rest())) == 3
    found = ended(server, name, 2)
    assert found["reason"] == "TIMEOUT"
    assert found["journal"] == [TIMEOUT, COMPLETION]
    assert get(server, f"/lists/{name}") == {"count": 0}


@pytest.mark.parametrize("way", ["close", "reset", "half-close", "close behind unread bytes"])
def test_disconnect_is_noticed_without_a_write(way: str, server: Server) -> None:
    """No heartbeat and no event is sent here: only the socket shows it."""
    name = new_name()
    client = Client(server, f"/numbered/{name}")
    assert len(client.events(3)) == 3
    until(lambda: state(server, name)["idle"], "the last write to be over")
    if way == "close behind unread bytes":
        client.socket.sendall(b"GET / HTTP/1.1\r\nHost: impatient\r\n")
    if way == "reset":
        client.reset()
    elif way == "half-close":
        client.socket.shutdown(socket.SHUT_WR)
    else:
        client.close()
    found = ended(server, name, 2)
    client.close()
    assert (found["reason"], found["error"]) == ("DISCONNECTED", "[Errno 104] the client left")
    assert found["journal"] == [ERROR, COMPLETION]
    assert get(server, f"/lists/{name}") == {"count": 0}


def test_bytes_from_the_client_are_no_disconnect(server: Server) -> None:
    name = new_name()
    with connected(server, f"/silent/{name}") as client:
        client.socket.sendall(b"GET / HTTP/1.1\r\n")
        for number in range(3):
            post(server, f"/send/{name}", number)
            assert client.texts(1) == [str(number)]
        assert state(server, name)["open"]


def test_disconnect_before_the_first_event_ends_the_stream(server: Server) -> None:
    name = new_name()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("GET", f"/silent/{name}")
    connection.close()
    assert ended(server, name, 2)["journal"] == [ERROR, COMPLETION]


def test_heartbeats_are_sent_during_silence(server: Server) -> None:
    with connected(server, f"/silent/{new_name()}?heartbeat=0.1") as client:
        client.read_some()
        assert [client.read_some() for _ in range(3)] == [b":\n\n"] * 3


def test_head_request_gets_headers_alone_and_ends_the_stream(server: Server) -> None:
    name = new_name()
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as raw:
        request = f"HEAD /numbered/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        raw.sendall(request.encode())
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200")
    assert b"Content-Type: text/event-stream" in head
    assert body == b""
    found = ended(server, name, 2)
    assert found["reason"] == "DISCONNECTED"
    assert [entry.split(" on ")[0] for entry in found["journal"]] == [ERROR, COMPLETION]


# Werkzeug's server sends chunks to clients of HTTP/1.0, too, and closes every connection, whatever the application.
on_gunicorn = pytest.mark.parametrize("server", [kind for kind in SERVERS if kind != "werkzeug"], indirect=True)


@on_gunicorn
def test_http_1_0_client_gets_the_stream_without_chunks(server: Server) -> None:
    name = new_name()
    with connected(server, f"/numbered/{name}", version=10) as client:
        assert client.response.headers.get("Transfer-Encoding") is None
        assert len(client.events(3)) == 3
        post(server, f"/send/{name}", "more")
        assert client.texts(1) == ["more"]
        post(server, f"/complete/{name}")
        assert client.rest() == b""


@pytest.mark.parametrize("view", ["failing", "failing-after"])
def test_request_that_fails_after_add_ends_its_emitter_and_leaves_the_list(view: str, server: Server) -> None:
    name = new_name()
    with connected(server, f"/{view}/{name}") as client:
        assert client.response.status == 500
    found = ended(server, name, 2)
    assert found["reason"] == "ERROR"
    assert "failed" in found["error"]
    assert found["journal"] == [ERROR, COMPLETION]
    assert get(server, f"/lists/{name}") == {"count": 0}


def test_emitter_that_no_view_returns_ends_at_the_attach_deadline(server: Server) -> None:
    name = new_name()
    with connected(server, f"/impatient/unreturned/{name}") as client:
        assert client.rest() == b"something else"
    found = ended(server, name, 2, "/impatient")
    assert found["reason"] == "ERROR"
    assert found["journal"] == ["error in impatient", "completion in impatient"]


def test_request_ends_while_its_stream_runs(server: Server) -> None:
    """And with the request the database session that it held."""
    name = new_name()
    with connected(server, f"/numbered/{name}") as client:
        assert len(client.events(3)) == 3
        until(lambda: name in get(server, "/requests"), "the teardown of the request")
        assert state(server, name)["open"]


def test_last_event_id_is_what_the_client_sent(server: Server) -> None:
    name = new_name()
    with connected(server, f"/silent/{name}", headers={"Last-Event-ID": "é7".encode().decode("latin-1")}):
        assert state(server, name)["last_event_id"] == "é7"


def test_overflow_cuts_a_client_that_reads_nothing(server: Server) -> None:
    name = new_name()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(PATIENCE)
        raw.connect(("127.0.0.1", server.port))
        raw.sendall(f"GET /silent/{name}?max_pending=20 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until(lambda: "open" in state(server, name), "the emitter")
        until(lambda: not post(server, f"/send/{name}", "x" * 100_000)["sent"], "the overflow")
        found = ended(server, name, 2)
        got = b"".join(iter(lambda: _recv(raw), b""))
    assert found["reason"] == "OVERFLOW"
    assert "max_pending=20" in found["error"]
    assert found["journal"] == [ERROR, COMPLETION]
    assert not got.endswith(b"\r\n0\r\n\r\n"), "a clean end would say that nothing is missing"


@pytest.mark.parametrize("query", ["timeout=60", "timeout=0.2"])
def test_write_timeout_frees_a_client_that_reads_nothing(query: str, server: Server) -> None:
    """While events are sent, it counts as disconnected; once its stream has ended, pending events are given up."""
    name = new_name()
    until(lambda: get(server, "/process")["watched"] == 0, "the server to release the clients of other tests")
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(PATIENCE)
        raw.connect(("127.0.0.1", server.port))
        raw.sendall(f"GET /hasty/silent/{name}?{query}&overflow=drop_oldest HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until(lambda: "open" in state(server, name), "the emitter")
        until(lambda: not post(server, f"/send/{name}", "x" * 50_000)["sent"], "the end")
        reason = ended(server, name, 2)["reason"]
        assert reason in (("DISCONNECTED",) if "60" in query else ("TIMEOUT", "DISCONNECTED"))
        until(lambda: get(server, "/process")["watched"] == 0, "the server to release it")


def _recv(raw: socket.socket) -> bytes:
    try:
        return raw.recv(65536)
    except ConnectionResetError:
        return b""


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


@pytest.mark.parametrize("path", ["completed", "numbered"])
def test_stream_connection_closes_after_the_end_as_announced(path: str, server: Server) -> None:
    head, body = answer_to_the_end(server, f"/{path}/{new_name()}?timeout=0.1")
    assert head.count(b"\r\nConnection: close") == 1
    assert body.endswith(b"\r\n0\r\n\r\n")


def test_clients_that_keep_an_ended_connection_open_delay_no_request(server: Server) -> None:
    """gunicorn's gthread worker waits 2 seconds for each, on the one thread that accepts, unless that is prevented."""
    room = new_name()
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server, f"/numbered/{new_name()}?list={room}")) for _ in range(30)]
        post(server, f"/lists/{room}/complete")
        for client in clients:
            assert len(decode(client.rest())) == 3
        assert get(server, f"/lists/{room}") == {"count": 0}


def test_connection_pool_loses_no_request_when_streams_end(server: Server) -> None:
    """Each POST comes right after the end of a stream, on whatever connection the client has kept."""
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as pool:
        for _ in range(30):
            name = new_name()
            with pool.stream("GET", f"/numbered/{name}") as stream:
                chunks = stream.iter_raw()
                next(chunks)
                post(server, f"/complete/{name}")
                assert stream.status_code == 200
                list(chunks)
            assert pool.post(f"/lists/{name}/complete").status_code == 200


def test_disconnects_leave_no_traceback_in_the_servers_log(server: Server) -> None:
    """Nothing about clients that left or were cut reaches the log of a server."""
    name = new_name()
    for leave in (Client.close, Client.reset):
        client = Client(server, f"/numbered/{name}")
        client.events(1)
        before = len(server.log)
        leave(client)
        ended(server, name, 2)
        time.sleep(0.1)  # for a stack trace that should not come
        assert "Traceback" not in server.log[before:]


@pytest.mark.parametrize("server", ["gevent", "gthread"], indirect=True)
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
