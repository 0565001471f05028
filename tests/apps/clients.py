"""Channels for third-party clients: the app records their requests, and cuts them in realistic ways."""

from __future__ import annotations

import socket
import struct
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from flask import Flask, Response, request, send_from_directory

from flask_sse_emitters import SSE, CloseReason, Event
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.outgoing import WriterState
from flask_sse_emitters.wire.frame import chunk

TESTS = Path(__file__).parents[1]

#: The folder in which ``make`` installs npm packages.
PACKAGES = TESTS.parent / "build" / "npm" / "node_modules"

#: Milliseconds until a client reconnects.
RETRY = 100

app = Flask(__name__)
app.config["SSE_RETRY"] = RETRY
sse = SSE(app)
app.register_blueprint(sse.blueprint, url_prefix="/events")
sse.authorizer(lambda _: True)

#: The requests for streams of each channel: their times and last ids.
visits: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)


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


@app.get("/state/<channel>")
def get_state(channel: str) -> dict[str, Any]:
    """Return the visits, and how many clients have received everything and wait."""
    emitters = sse.channel(channel).emitters
    waiting = sum(
        stream_of(emitter).outgoing.direct is not None and stream_of(emitter).outgoing.state is WriterState.IDLE
        for emitter in emitters
    )
    return {"visits": visits[channel], "waiting": waiting}


@app.post("/publish")
def publish() -> list[str]:
    """Publish numbers, in turns over the channels."""
    wanted = request.get_json()
    channels = wanted["channels"]
    return [sse.publish(channels[number % len(channels)], number) for number in wanted["numbers"]]


@app.post("/greet/<channel>")
def greet(channel: str) -> dict[str, int]:
    """Send an event to the list, which has no id."""
    return {"reached": sse.channel(channel).emitters.send(request.get_json())}


@app.post("/cut/<how>")
def cut(how: str) -> dict[str, Any]:
    """Cut all clients of the channels, and publish numbers before any can reconnect."""
    wanted = request.get_json()
    emitters = list(dict.fromkeys(emitter for name in wanted["channels"] for emitter in sse.channel(name).emitters))
    clients: list[Any] = [stream_of(emitter).outgoing.direct._client for emitter in emitters]  # type: ignore[union-attr]
    at = time.monotonic()
    if how == "halfway":
        half = Event(wanted["numbers"][0], id=next_id(wanted["channels"][0])).encode().rstrip(b"\n")
        for client in clients:
            client.send(chunk(half))
    for emitter, client in zip(emitters, clients, strict=True):
        if how == "end":
            emitter.complete()
        else:
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("cut by the test"))
    return {"at": at, "ids": publish(), "cut": len(emitters)}


def next_id(channel: str) -> str:
    """Return the id that the next published event will have."""
    log = sse._channels().subscription(channel).log
    assert log is not None
    return f"{log.epoch}-{log.newest + 1}"


@app.get("/pages/<path:path>")
def page(path: str) -> Response:
    return send_from_directory(TESTS / "browser" / "clients", path)


@app.get("/packages/<path:path>")
def package(path: str) -> Response:
    return send_from_directory(PACKAGES, path)
