"""Connections on every supported server: disconnects, the end of the request, and what comes after a stream."""

from __future__ import annotations

import http.client
import socket
import time
from contextlib import ExitStack

import httpx
import pytest

from flask_sse_emitters.testing import decode
from tests.support.client import Client, answer_to_the_end, connected, ended, get, new_name, post, state
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

COMPLETION = "completion in contract"
ERROR = "error in contract"


@pytest.mark.parametrize("way", ["close", "reset", "half-close", "close behind unread bytes"])
def test_disconnect_is_noticed_without_a_write(way: str, server: Server) -> None:
    """No heartbeat and no event is sent here: only the socket shows it."""
    name = new_name()
    client = Client(server, f"/numbered/{name}")
    assert len(client.events(3)) == 3
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


def test_disconnect_before_the_first_event_ends_the_stream(server: Server) -> None:
    name = new_name()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("GET", f"/silent/{name}")
    connection.close()
    assert ended(server, name, 2)["journal"] == [ERROR, COMPLETION]


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


def test_bytes_from_the_client_are_no_disconnect(server: Server) -> None:
    name = new_name()
    with connected(server, f"/silent/{name}") as client:
        client.socket.sendall(b"GET / HTTP/1.1\r\n")
        for number in range(3):
            post(server, f"/send/{name}", number)
            assert client.texts(1) == [str(number)]
        assert state(server, name)["open"]


def test_request_ends_while_its_stream_runs(server: Server) -> None:
    """And with the request the database session that it held."""
    name = new_name()
    with connected(server, f"/numbered/{name}") as client:
        assert len(client.events(3)) == 3
        until(lambda: name in get(server, "/requests"), "the teardown of the request")
        assert state(server, name)["open"]


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
