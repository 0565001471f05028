"""Finite streams on every supported server: back-pressure, clients that leave, errors, and others that are served."""

from __future__ import annotations

import http.client
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from flask_sse_emitters.testing import decode
from tests.servers.kinds import HANDING_OFF, on
from tests.support.client import answer_to_the_end, connected, get, new_app, new_name, post, slow_client
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until


def test_send_from_gives_all_to_a_client_that_reads_late_and_waits_for_it(server: Server) -> None:
    """No more is pulled than the client's socket takes; several MB of it are the system's."""
    name, count = new_name(), 3_000
    with closing(slow_client(server, f"/words/{name}?count={count}&size=5000&bare=1")) as raw:
        until(lambda: get(server, f"/pulled/{name}")["items"] > 0, "the first item")
        before = -1
        while (now := get(server, f"/pulled/{name}")["items"]) != before:  # until it pauses
            before = now
            time.sleep(0.2)
        assert 0 < now < count
        response = http.client.HTTPResponse(raw)
        response.begin()
        words = [event.data for event in decode(response.read())]
    assert [word.partition(" ")[0] for word in words] == [*map(str, range(count)), "[DONE]"]
    until(lambda: get(server, f"/pulled/{name}") == {"items": count, "closed": 1}, "the iterable to be closed")


def test_send_from_closes_the_iterable_when_the_client_leaves(server: Server) -> None:
    name = new_name()
    with connected(server, f"/words/{name}?count=10000000") as client:
        assert client.texts(3)[0].startswith("0 ")
    until(lambda: get(server, f"/pulled/{name}")["closed"] == 1, "the iterable to be closed")
    assert get(server, f"/pulled/{name}")["items"] < 10_000_000


@on(*HANDING_OFF)
def test_send_from_to_a_paused_client_that_leaves_is_closed(server: Server) -> None:
    """Nothing has to be written for that: no heartbeat comes in this time."""
    name, app = new_name(), new_app(server, SSE_HEARTBEAT=10 * PATIENCE)

    def found() -> dict[str, int]:
        return dict(get(server, f"{app}/pulled/{name}"))

    with closing(slow_client(server, f"{app}/words/{name}?count=10000&size=5000")):
        until(lambda: found()["items"], "the first item")
        before = -1
        while (now := found()["items"]) != before:  # until it pauses
            before = now
            time.sleep(0.2)
    until(lambda: found()["closed"], "the iterable to be closed")
    assert found() == {"items": before, "closed": 1}


def test_send_from_that_raises_is_no_whole_body(server: Server) -> None:
    with connected(server, f"/raising/{new_name()}") as client, pytest.raises(http.client.IncompleteRead) as caught:
        client.rest()
    assert [(event.event, event.data) for event in decode(caught.value.partial)] == [
        (None, "half"),
        ("failed", "upstream"),
    ]


@on(*HANDING_OFF, "gevent_off", "gthread_off")
def test_send_from_that_raises_ends_with_what_is_no_chunk(server: Server) -> None:
    """After ``Connection: close`` Node's fetch takes chunks that merely stop for the whole body, also at a reset."""
    head, body = answer_to_the_end(server, f"/raising/{new_name()}")
    assert b"connection: close" in head.lower()
    assert body.endswith(b"data: upstream\n\n\r\nbroken\r\n")


@on(*HANDING_OFF)
def test_send_from_that_raises_resets_a_connection_without_chunks(server: Server) -> None:
    """HTTP/1.0 ends a body by closing, as nginx has it from its upstreams unless it is told otherwise."""
    with connected(server, f"/raising/{new_name()}", version=10) as client:
        assert client.texts(2) == ["half", "upstream"]
        with pytest.raises(ConnectionResetError):
            client.rest()


@on(*HANDING_OFF)
def test_stream_aborted_before_it_begins_resets_a_connection(server: Server) -> None:
    """It has nothing but its first bytes: what ends it comes before anything could be written."""
    begun = len(server.log)
    with connected(server, "/aborted") as client, pytest.raises(http.client.IncompleteRead):
        client.rest()
    with connected(server, "/aborted", version=10) as client, pytest.raises(ConnectionResetError):
        client.rest()
    assert "Traceback" not in server.log[begun:]


def test_send_from_that_computes_holds_up_no_other_request(server: Server) -> None:
    name = new_name()
    with connected(server, f"/computing/{name}?count=300") as client:
        assert client.events(1)
        answered = 0
        while get(server, f"/pulled/{name}")["items"] < 300:
            answered += 1
        assert answered > 10
        assert len(client.events(300)) == 300


@on("gevent", "gevent_off", "gthread", "gthread_off", "sync", "gevent_pywsgi")
def test_loop_of_sends_that_wait_reaches_a_client_whole(server: Server) -> None:
    with connected(server, f"/loop/{new_name()}?count=5000") as client:
        assert [event.data for event in decode(client.rest())] == [*map(str, range(5000))]


def test_export_of_a_database_is_whole(server: Server, tmp_path: Path) -> None:
    name, count = new_name(), 20_000
    with sqlite3.connect(tmp_path / "rows") as database:
        database.execute("CREATE TABLE rows (number INTEGER, text TEXT)")
        database.executemany("INSERT INTO rows VALUES (?, ?)", ((number, "x" * 20) for number in range(count)))
    with connected(server, f"/rows/{name}?path={tmp_path / 'rows'}") as client:
        rows = [event.data for event in decode(client.rest())]
    assert [row.partition(",")[0] for row in rows] == [*map(str, range(count)), "[DONE]"]


def test_send_from_that_waits_lets_heartbeats_out(server: Server) -> None:
    name = new_name()
    with connected(server, f"/gated/{name}") as client:
        got = b""
        while got.count(b":\n\n") < 2:
            got += client.read_some()
        post(server, f"/open/{name}")
        assert [event.data for event in decode(got + client.rest())] == ["first", "second", "[DONE]"]


@on("gevent", "gevent_off", "gthread", "gthread_off", "sync", "gevent_pywsgi")
def test_post_whose_body_no_view_reads_gets_its_stream_whole(server: Server) -> None:
    """The body comes after the head, as HTTP clients send it: left unread, it would cost the client the end."""
    name, body, large = new_name(), b"{}", 100_000
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as raw:
        head = f"POST /posted/{name}?size={large} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        raw.sendall(head.encode())
        until(lambda: get(server, f"/pulled/{name}")["items"], "the view")
        raw.sendall(body)
        post(server, f"/open/{name}")
        until(lambda: get(server, f"/pulled/{name}")["closed"], "the end of the iterable")
        time.sleep(0.3)  # for a reset, which should not come
        response = http.client.HTTPResponse(raw)
        response.begin()
        texts = [event.data for event in decode(response.read())]
    assert [len(text) for text in texts][:2] == [5, large]
