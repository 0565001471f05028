"""Channels for the browser module: the app records its requests, and denies some channels."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from flask import Flask, Response, request, send_from_directory

from flask_sse_emitters import SSE

PAGES = Path(__file__).parents[1] / "browser" / "clients"

app = Flask(__name__)
app.config.update({"SSE_RETRY": 100, **json.loads(os.environ.get("CONFIG", "{}"))})
sse = SSE(app)
app.register_blueprint(sse.blueprint, url_prefix="/events")

#: The requests for streams.
visits: list[dict[str, Any]] = []

#: Channels that may not be read.
closed: set[str] = set()


@sse.authorizer
def may_read(channel: str) -> bool | str:
    if channel == "~":
        return request.headers.get("X-Reader", "")
    return channel not in closed and not channel.startswith("closed")


@app.before_request
def note_visit() -> None:
    if request.path != "/events" or request.method != "GET":
        return
    visit = {"at": time.monotonic(), "channels": request.args.getlist("channel")}
    visits.append({**visit, "id": request.headers.get("Last-Event-ID")})


@app.post("/publish")
def publish() -> list[str]:
    """Publish the events of the body, one after the other."""
    return [
        sse.publish(each["channel"], each["data"], event=each.get("event"), retry=each.get("retry"))
        for each in request.get_json()
    ]


@app.post("/publish-to/<identity>")
def publish_to(identity: str) -> dict[str, str]:
    return {"id": sse.publish_to(identity, request.get_json())}


@app.post("/greet/<channel>")
def greet(channel: str) -> dict[str, int]:
    """Send an event to the list, which has no id."""
    return {"reached": sse.channel(channel).emitters.send(request.get_json())}


@app.post("/close/<channel>")
def close(channel: str) -> dict[str, int]:
    """Deny the channel to all clients from now on."""
    closed.add(channel)
    sse.disconnect(channel=channel)
    return {}


@app.post("/cut/<channel>")
def cut(channel: str) -> list[str]:
    """End its streams, and publish the events of the body before any client can reconnect."""
    sse.channel(channel).emitters.complete()
    return publish()


@app.get("/state")
def get_state() -> dict[str, Any]:
    stats = sse.stats()
    return {"clients": stats["clients"], "opened": stats["opened"], "channels": stats["channels"], "visits": visits}


@app.get("/page")
def page() -> Response:
    return send_from_directory(PAGES, "tabs.html")
