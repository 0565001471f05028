"""Channels for third-party clients: the app records their requests, and cuts them in realistic ways."""

from __future__ import annotations

import ctypes
import socket
import time
from collections import defaultdict
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from flask import Response, request, send_from_directory

from flask_sse_emitters import SSE, Event, SseEmitter
from tests.apps.base import make_app

TESTS = Path(__file__).parents[2]

#: The folder in which ``make`` installs npm packages.
PACKAGES = TESTS.parent / "build" / "npm" / "node_modules"

#: Milliseconds until a client reconnects.
RETRY = 100

app, sse = make_app(__name__, SSE_RETRY=RETRY)
sse.authorizer(lambda _: True)

#: The requests for streams of each channel: their times and last ids.
visits: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

#: Duplicates of their connections, since a client that is handed off is taken from gunicorn.
connections: defaultdict[str, list[socket.socket]] = defaultdict(list)


@app.before_request
def note_visit() -> None:
    place, _, channel = request.path[1:].partition("/")
    if place == "events":
        visit = {
            "at": time.monotonic(),
            "header": request.headers.get("Last-Event-ID"),
            "query": request.args.getlist("lastEventId"),
        }
        for name in [channel] if channel else request.args.getlist("channel"):
            visits[name].append(visit)
            connections[name].append(request.environ["gunicorn.socket"].dup())


@app.get("/state/<channel>")
def get_state(channel: str) -> dict[str, Any]:
    """Return the visits, and how many clients have received everything and wait."""
    return {"visits": visits[channel], "waiting": count_waiting(sse, channel)}


def count_waiting(sse: SSE, channel: str) -> int:
    """Return how many clients of a channel wait for events; 0 while any client of the app still gets some."""
    stats = sse.stats()
    is_busy = stats["pending"] or stats["outlets"]["server"]
    return 0 if is_busy else stats["channels"].get(channel, 0)


@app.post("/publish")
def publish() -> list[str]:
    """Publish numbers, in turns over the channels."""
    wanted = request.get_json()
    channels = wanted["channels"]
    return [sse.publish(channels[number % len(channels)], number) for number in wanted["numbers"]]


@app.post("/cut/<how>")
def cut(how: str) -> dict[str, Any]:
    """Cut all clients of the channels, and publish numbers before any can reconnect."""
    wanted = request.get_json()
    channels = wanted["channels"]
    clients = sse.stats()["channels"][channels[0]]
    at = time.monotonic()
    if how == "end":
        for name in channels:
            sse.channel(name).emitters.complete()
    for connection in connections.pop(channels[0]):
        with closing(connection), suppress(OSError):  # it may be over
            cut_connection(connection, how, wanted)
    return {"at": at, "ids": publish(), "cut": clients}


def cut_connection(connection: socket.socket, how: str, wanted: dict[str, Any]) -> None:
    if how == "reset":
        ctypes.CDLL(None).connect(
            connection.fileno(), bytes(16), 16
        )  # to no address: TCP resets the connection at once
    if how == "halfway":
        half = Event(wanted["numbers"][0], id=wanted["next_id"]).encode().rstrip(b"\n")
        connection.sendall(b"%x\r\n%b\r\n" % (len(half), half))
    if how in ("halfway", "break"):
        connection.shutdown(socket.SHUT_RDWR)


@app.get("/silent")
def silent() -> SseEmitter:
    """Return a stream that is silent after its first event."""
    emitter = SseEmitter(heartbeat=0)
    emitter.send("last")
    return emitter


@app.get("/pages/<path:path>")
def page(path: str) -> Response:
    return send_from_directory(TESTS / "browser" / "clients", path)


@app.get("/packages/<path:path>")
def package(path: str) -> Response:
    return send_from_directory(PACKAGES, path)
