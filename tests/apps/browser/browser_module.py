"""Channels for the browser module, whose users log in and out with a cookie; the app records their requests."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flask import Response, request, send_from_directory, session

from flask_sse_emitters.access import Grant
from tests.apps.base import make_app

PAGES = Path(__file__).parents[2] / "browser" / "clients"

app, sse = make_app(__name__, SECRET_KEY="of the tests alone", SSE_RETRY=100)
sse.channel("news", public=True)

#: The requests for channels.
visits: list[dict[str, Any]] = []

#: Channels that may not be read.
closed: set[str] = set()

#: Whether this server sends the reader's identity; an older version does not.
says = {"reader": True}


def user() -> str | None:
    name: str | None = request.headers.get("X-Reader") or session.get("user")
    return name


@sse.authorizer
def may_read(channel: str) -> bool | Grant:
    if channel in closed or channel.startswith("closed"):
        return False
    if channel.startswith("child-of"):
        return Grant(request.headers["X-Child"])  # another identity than that of the other channels
    if channel.startswith("admins"):
        return user() == "alice"  # without an identity
    if channel == "~" or channel.startswith("mine"):
        name = user()
        return Grant(name, seconds=session.get("seconds")) if name else False
    return True


@app.after_request
def note_visit(response: Response) -> Response:
    if request.path == "/events":
        visit = {"method": request.method, "channels": request.args.getlist("channel"), "user": user()}
        visits.append({**visit, "at": time.monotonic(), "id": request.headers.get("Last-Event-ID")})
        if not says["reader"]:
            response.headers.pop("SSE-Reader", None)
    return response


@app.post("/log-in/<name>")
def log_in(name: str) -> dict[str, str]:
    session.clear()
    session.update(request.get_json(silent=True) or {}, user=name)
    return {"user": name}


@app.post("/log-out")
def log_out() -> dict[str, str]:
    session.clear()
    return {}


@app.post("/says-reader")
def say_reader() -> dict[str, bool]:
    says["reader"] = request.get_json()
    return says


@app.post("/secrets")
def change_secrets() -> dict[str, str]:
    """Change the app's ``SECRET_KEY`` and its fallbacks, as a deploy does."""
    app.config["SECRET_KEY"], *app.config["SECRET_KEY_FALLBACKS"] = request.get_json()
    return {}


@app.post("/publish")
def publish() -> list[str]:
    """Publish the events of the body, one after the other."""
    return [
        sse.publish(each["channel"], each["data"], event=each.get("event"), retry=each.get("retry"))
        for each in request.get_json()
    ]


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


@app.post("/complete/<channel>")
def complete(channel: str) -> dict[str, int]:
    """End the channel for good."""
    sse.channel(channel).complete()
    return {}


@app.post("/cut-and-complete/<channel>")
def cut_and_complete(channel: str) -> dict[str, int]:
    """End its streams, and the channel before any client can reconnect."""
    sse.channel(channel).emitters.complete()
    return complete(channel)


@app.get("/state")
def get_state() -> dict[str, Any]:
    stats = sse.stats()
    return {"clients": stats["clients"], "opened": stats["opened"], "channels": stats["channels"], "visits": visits}


@app.get("/page")
def page() -> Response:
    return send_from_directory(PAGES, "tabs.html")
