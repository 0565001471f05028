"""Answers of real servers to ``flask sse check``, headers and comments, and the command when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from flask_sse_emitters.testing import decode
from tests.support.client import Client, connected, get, post
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until
from tests.support.web.tiny_server import Request, TinyServer

pytestmark = pytest.mark.xdist_group("probe")

KINDS = ["gevent", "gthread", "werkzeug"]

NONCE = "0123456789abcdef"

#: As the server sends them: so many comments, the last of which has so many bytes.
COMMENTS, PADDING_BYTES = 6, 65_536

COMMENTS_WANTED = {"Sse-Check": f"{NONCE}; comments"}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        yield {kind: stack.enter_context(Server(kind, "tests.apps.channels:app")) for kind in KINDS}


def values_of(header: str) -> dict[str, str]:
    nonce, *values = header.split("; ")
    assert nonce == NONCE
    return dict(value.split("=") for value in values)


def read_to(client: Client, end: bytes) -> bytes:
    body = b""
    while end not in body:
        piece = client.read_some()
        assert piece, body
        body += piece
    return body


def test_probe_gets_comments_and_padding_and_unchanged_events(servers: dict[str, Server]) -> None:
    """Of a channel and of a view's emitter, on all servers at once: the comments take seconds."""
    paths = {"/events?channel=probed": "/publish/probed", "/connect": "/send"}
    with ExitStack() as stack:
        clients = [
            [stack.enter_context(connected(server, path, headers=headers)) for headers in (COMMENTS_WANTED, {})]
            for server in servers.values()
            for path in paths
        ]
        bodies = [read_to(probe, b": check 1\n\n") for probe, _ in clients]
        for server in servers.values():
            assert get(server, "/stats")["published"] == 0
            for path in paths.values():
                post(server, path, "between")
        for (probe, other), body in zip(clients, bodies, strict=True):
            assert values_of(probe.response.headers["Sse-Check"])["comments"] == str(COMMENTS)
            assert "Sse-Check" not in other.response.headers
            while b"check %d\n: " % COMMENTS not in body or len(body) < PADDING_BYTES:
                body += probe.read_some()
            seen = read_to(other, b"data: between\n\n")
            assert b"check" not in seen
            assert [event.data for event in decode(body)] == ["between"]
            assert decode(body) == decode(seen), "comments have no ids"
            numbers = [line for line in body.split(b"\n") if line.startswith(b": check ")]
            assert numbers == [b": check %d" % (number + 1) for number in range(COMMENTS)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("version", "headers", "expected"),
    [
        (11, {}, {"protocol": "HTTP/1.1", "connection": "", "last-event-id": "no"}),
        (10, {"Connection": "close"}, {"protocol": "HTTP/1.0", "connection": "close", "last-event-id": "no"}),
        (11, {"Connection": "Upgrade, Keep-Alive"}, {"protocol": "HTTP/1.1", "connection": "keep-alive"}),
        (11, {"Last-Event-ID": "x"}, {"last-event-id": "yes"}),
    ],
    ids=["HTTP/1.1", "HTTP/1.0", "kept", "reconnect"],
)
def test_probe_header_reports_the_request(
    kind: str, version: int, headers: dict[str, str], expected: dict[str, str], servers: dict[str, Server]
) -> None:
    asked = {"Sse-Check": NONCE, **headers}
    with connected(servers[kind], "/events?channel=asked", headers=asked, version=version) as client:
        header = values_of(client.response.headers["Sse-Check"])
    assert expected.items() <= header.items()
    assert (header["heartbeat"], header["comments"]) == ("15", "0")


def test_check_interrupt_exits_with_130_and_no_traceback() -> None:
    def silent(request: Request) -> Iterator[bytes]:
        yield request.hold()

    with TinyServer(silent) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "tests.apps.cli", "sse", "check", server.url],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: server.requests, "its request")
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()
    assert (process.returncode, out) == (130, "")
    assert len(errors.splitlines()) == 1
    assert errors.startswith("- connecting to ")
