"""Several sites in one process, with channels that only bob may read; tests control them over HTTP."""

from __future__ import annotations

import gc
import json
import logging
import os
from typing import Any
from weakref import WeakSet

from flask import Flask, request, session
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_sse_emitters import SSE, SseEmitter
from flask_sse_emitters.access import jwt_authorizer
from flask_sse_emitters.signals import emitter_opened
from tests.apps.base import make_app

logging.basicConfig(level=logging.INFO)

SECRETS: dict[str, str] = json.loads(os.environ["SECRETS"])


def make_site(**config: Any) -> tuple[Flask, SSE]:
    """Make a site where ``open`` is public, and where tests log in, publish to many channels, and fill one."""
    app, sse = make_app(__name__, SECRET_KEY=SECRETS["session"], **config)
    sse.channel("open", public=True)

    @app.get("/login/<user>")
    def login(user: str) -> dict[str, str]:
        session["user"] = user
        return {}

    @app.post("/publish")
    def publish() -> dict[str, str]:
        body = request.get_json()
        return {
            name: sse.publish_to(name[1:], body["data"]) if name[0] == "~" else sse.publish(name, body["data"])
            for name in body["channels"]
        }

    @app.post("/fill")
    def fill() -> list[str]:
        """Publish more than sockets hold; return the first 40 characters of each event."""
        channel = sse.channel(request.get_json())
        heads = [f"{number:-<40}" for number in range(600)]
        for head in heads:
            channel.publish(head + "x" * 20_000)
        return heads

    return app, sse


def of_sessions(**config: Any) -> tuple[Flask, SSE]:
    """Make a site where ``news`` and ``team/a`` need a session, and all other channels are bob's."""
    app, sse = make_site(**config)
    denied: set[str] = set()  # users with a session, but without rights

    @sse.authorizer
    def may_read(channel: str) -> str | bool:
        user = str(session.get("user", ""))
        return user not in denied and (channel in ("news", "team/a", "~") or user.startswith("bob")) and user

    @app.post("/deny")
    def deny() -> dict[str, str]:
        denied.add(request.get_json())
        return {}

    return app, sse


def of_tokens(**options: Any) -> tuple[Flask, SSE]:
    app, sse = make_site()
    sse.authorizer(jwt_authorizer(SECRETS["tokens"], algorithms=["HS256"], audience="streams", **options))
    return app, sse


app, sse = of_sessions(SSE_MAX_PENDING_BYTES=50_000_000)
sites = {
    "/posts": of_sessions(SSE_MAX_EVENT_BYTES=10_000),
    "/listed": of_sessions(SSE_CORS_ORIGINS=["https://listed.example"]),
    "/anyone": of_sessions(SSE_CORS_ORIGINS="*"),
    "/jwt": of_tokens(),
    "/jwt-anywhere": of_tokens(cookie="token", query="access"),
}
emitters: WeakSet[SseEmitter] = WeakSet()


@sites["/posts"][1].publisher
def may_publish(_channel: str) -> bool:
    return request.headers.get("Authorization") == SECRETS["publisher"] or session.get("user") == "bob"


@emitter_opened.connect
def note(_: Flask, emitter: SseEmitter) -> None:
    emitters.add(emitter)


@app.get("/left")
def left() -> dict[str, Any]:
    """Return what is there of all sites' streams."""
    if emitters:
        gc.collect()
    stats = [each.stats() for each in (sse, *(other for _, other in sites.values()))]
    return {
        "clients": sum(each["clients"] for each in stats),
        "channels": {name: number for each in stats for name, number in each["channels"].items()},
        "emitters": len(emitters),
    }


app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {path: each for path, (each, _) in sites.items()})  # type: ignore[method-assign]
