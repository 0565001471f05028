"""Channels for the browser module: what its requests ask for is noted, and some channels are refused."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from flask import Flask, Response, request, send_from_directory

from flask_sse_emitters import SSE

HERE = Path(__file__).parent

app = Flask(__name__)
app.config.update({"SSE_RETRY": 100, **json.loads(os.environ.get("CONFIG", "{}"))})
sse = SSE(app)
app.register_blueprint(sse.blueprint, url_prefix="/events")

#: The streams that were asked for.
visits: list[dict[str, Any]] = []

#: Nobody may read these.
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
    """Publish what is said, one after the other."""
    return [
        sse.publish(said["channel"], said["data"], event=said.get("event"), retry=said.get("retry"))
        for said in request.get_json()
    ]


@app.post("/publish-to/<identity>")
def publish_to(identity: str) -> dict[str, str]:
    return {"id": sse.publish_to(identity, request.get_json())}


@app.post("/greet/<channel>")
def greet(channel: str) -> dict[str, int]:
    """Send something by hand, which has no id."""
    return {"reached": sse.channel(channel).emitters.send(request.get_json())}


@app.post("/close/<channel>")
def close(channel: str) -> dict[str, int]:
    """Let nobody read the channel any more."""
    closed.add(channel)
    sse.disconnect(channel=channel)
    return {}


@app.post("/cut/<channel>")
def cut(channel: str) -> list[str]:
    """End its streams, and publish what is said before any can be back."""
    sse.channel(channel).emitters.complete()
    return publish()


@app.get("/state")
def get_state() -> dict[str, Any]:
    stats = sse.stats()
    return {"clients": stats["clients"], "opened": stats["opened"], "channels": stats["channels"], "visits": visits}


@app.get("/page")
def page() -> Response:
    return send_from_directory(HERE / "clients", "tabs.html")
