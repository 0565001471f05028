"""Channels for users who log in and out in one browser, with a cookie as Flask's session is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flask import Flask, Response, request, send_from_directory, session

from flask_sse_emitters import SSE
from flask_sse_emitters.access import Grant

PAGES = Path(__file__).parents[1] / "browser" / "clients"

app = Flask(__name__)
app.config.update({"SECRET_KEY": "of the tests alone", "SSE_RETRY": 100, **json.loads(os.environ.get("CONFIG", "{}"))})
sse = SSE(app)
sse.channel("news", public=True)
app.register_blueprint(sse.blueprint, url_prefix="/events")

#: The requests for channels: method, channels, and user.
visits: list[dict[str, Any]] = []

#: Whether this server sends the reader's identity; an older version does not.
says = {"reader": True}


def user() -> str | None:
    name: str | None = request.headers.get("X-Reader") or session.get("user")
    return name


@sse.authorizer
def may_read(channel: str) -> bool | Grant:
    if channel.startswith("lobby"):
        return True  # public
    if channel.startswith("child-of"):
        return Grant(request.headers["X-Child"])  # another identity than that of the other channels
    if channel.startswith("admins"):
        return user() == "alice"  # without an identity
    name = user()
    return Grant(name, seconds=session.get("seconds")) if name else False


@app.after_request
def note_visit(response: Response) -> Response:
    if request.path == "/events":
        visits.append({"method": request.method, "channels": request.args.getlist("channel"), "user": user()})
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


@app.post("/disconnect/<name>")
def disconnect(name: str) -> dict[str, str]:
    sse.disconnect(name)
    return {}


@app.post("/cut/<path:channel>")
def cut(channel: str) -> dict[str, str]:
    """End its streams, as the maximum lifetime does."""
    sse.channel(channel).emitters.complete()
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
    return [sse.publish(each["channel"], each["data"]) for each in request.get_json()]


@app.post("/publish-to/<name>")
def publish_to(name: str) -> dict[str, str]:
    return {"id": sse.publish_to(name, request.get_json())}


@app.get("/state")
def get_state() -> dict[str, Any]:
    return {"channels": sse.stats()["channels"], "opened": sse.stats()["opened"], "visits": visits}


@app.get("/page")
def page() -> Response:
    return send_from_directory(PAGES, "tabs.html")
