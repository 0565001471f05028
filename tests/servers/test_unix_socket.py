"""Streams of a gunicorn that listens at a Unix socket, where the system tells less of a client than over TCP."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from flask_sse_emitters.testing import read_events
from tests.servers.nginx.behind_nginx import App
from tests.support.client import whole_response
from tests.support.waiting import until

#: Those that hand clients off.
KINDS = ["gevent", "gevent_pywsgi", "gthread", "sync"]


def await_handoff(app: App, clients: int = 1) -> None:
    until(lambda: app.get("/stats")["outlets"] == {"handed_off": clients, "server": 0}, "the hand-off")


@pytest.mark.parametrize("kind", KINDS)
def test_unix_socket_client_gets_events_heartbeats_and_an_end(kind: str, tmp_path: Path) -> None:
    with App(tmp_path, kind, SSE_HEARTBEAT=0.1, SSE_RETRY=1000) as app:
        with app.response("GET", "/connect") as client, app.response("GET", "/events?channel=a") as other:
            await_handoff(app, 2)
            for response, send in ((client, "/send"), (other, "/publish/a")):
                app.post(send, "text")
                assert [event.data for event in read_events(response, 1)] == ["text"]
                while b":\n\n" not in response.read1():
                    pass
            app.post("/end", None)
            assert re.fullmatch(rb"(:\n\n)*", client.read())
            old = app.reload()
            assert re.fullmatch(rb"(:\n\n)*retry: \d+\n\n", other.read())
        until(lambda: not psutil.pid_exists(old), "the old worker's end")
        with app.response("GET", "/connect"):
            await_handoff(app)
        until(lambda: app.get("/stats")["closed"] == {"disconnected": 1}, "the app to see that the client left")


@pytest.mark.parametrize("kind", KINDS)
def test_unix_socket_slow_client_gets_every_byte(kind: str, tmp_path: Path) -> None:
    with App(tmp_path, kind) as app, closing(app.connect()) as raw:
        raw.sendall(b"GET /connect HTTP/1.1\r\nHost: x\r\n\r\n")
        await_handoff(app)
        sent: list[str] = []
        while len(sent) < 20 or app.get("/pending") < [20]:
            sent.append(f"{len(sent)} " + "x" * (20_000 + len(sent)))
            app.post("/send", sent[-1])
        app.post("/end", None)
        assert whole_response(raw) == sent
