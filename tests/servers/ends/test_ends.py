"""How streams end on every supported server: in order, at an error, at a timeout, or cut off."""

from __future__ import annotations

import socket

import pytest

from flask_sse_emitters.testing import decode
from tests.servers.handoff.descriptors import ServersEnd
from tests.support.client import connected, ended, get, new_app, new_name, post, slow_client, state
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

COMPLETION = "completion in contract"
TIMEOUT = "timeout in contract"
ERROR = "error in contract"


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
    with connected(server, f"/numbered/{name}?timeout=0.3") as client:
        assert client.response.status == 200
        assert len(decode(client.rest())) == 3
    found = ended(server, name, 2)
    assert found["reason"] == "TIMEOUT"
    assert found["journal"] == [TIMEOUT, COMPLETION]
    assert get(server, f"/lists/{name}") == {"count": 0}


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


def test_attach_deadline_ends_an_emitter_that_no_view_returns(server: Server) -> None:
    name, app = new_name(), new_app(server, SSE_ATTACH_SECONDS=0.2)
    with connected(server, f"{app}/unreturned/{name}") as client:
        assert client.rest() == b"something else"
    found = ended(server, name, 2)
    assert found["reason"] == "ERROR"
    assert found["journal"] == [f"error in {app[1:]}", f"completion in {app[1:]}"]


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


def test_overflow_cuts_a_client_that_reads_nothing(server: Server) -> None:
    name = new_name()
    with slow_client(server, f"/silent/{name}?max_pending=20") as raw:
        until(lambda: "open" in state(server, name), "the emitter")
        until(lambda: not post(server, f"/send/{name}", "x" * 100_000)["sent"], "the overflow")
        found = ended(server, name, 2)
        got = b"".join(iter(lambda: _recv(raw), b""))
    assert found["reason"] == "OVERFLOW"
    assert "max_pending=20" in found["error"]
    assert found["journal"] == [ERROR, COMPLETION]
    assert not got.endswith(b"\r\n0\r\n\r\n"), "a clean end would say that nothing is missing"


def _recv(raw: socket.socket) -> bytes:
    try:
        return raw.recv(65536)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("is_ended", [False, True])
def test_write_timeout_frees_a_client_that_reads_nothing(is_ended: bool, server: Server) -> None:
    """While events are sent, it counts as disconnected; once its stream has ended, pending events are given up."""
    name, app = new_name(), new_app(server, SSE_WRITE_SECONDS=0.3)
    with slow_client(server, f"{app}/silent/{name}?max_pending=100000") as raw:
        until(lambda: "open" in state(server, name), "the emitter")
        connection = ServersEnd(server, raw)
        until(
            lambda: not post(server, f"/send/{name}", "x" * 50_000)["sent"] or _is_stuck(server, name), "a full socket"
        )
        if is_ended:
            post(server, f"/complete/{name}")
        reason = ended(server, name, 1 if is_ended else 2)["reason"]
        assert reason in (("COMPLETED", "DISCONNECTED") if is_ended else ("DISCONNECTED",))
        until(lambda: not connection.is_open, "the server to release it")


def _is_stuck(server: Server, name: str) -> bool:
    return bool(state(server, name)["pending"] >= 10)
