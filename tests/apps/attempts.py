"""Several sites in one process, with channels that only bob may read; tests control them over HTTP."""

from __future__ import annotations

import gc
import json
import logging
import os
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from flask import Flask, request, session
from flask.typing import ResponseReturnValue
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_sse_emitters import SSE, SseEmitter
from flask_sse_emitters.access import Rule, jwt_authorizer
from flask_sse_emitters.signals import emitter_opened

logging.basicConfig(level=logging.INFO)

SECRETS: dict[str, str] = json.loads(os.environ["SECRETS"])


class Site:
    """A site: ``news`` and ``team/a`` need a session, ``open`` is public, and all other channels are bob's."""

    def __init__(self, rule: Rule | None = None, **config: Any) -> None:
        self.app = Flask(__name__)
        self.app.config.update(SECRET_KEY=SECRETS["session"], **config)
        self.sse = SSE(self.app)
        self.sse.channel("open", public=True)
        self.sse.authorizer(rule or self.may_read)
        self.denied: set[str] = set()  # users with a session, but without rights
        self.app.register_blueprint(self.sse.blueprint, url_prefix="/events")
        views: dict[str, Callable[[], ResponseReturnValue]] = {
            "/login": self.login,
            "/deny": self.deny,
            "/publish": self.publish,
            "/fill": self.fill,
            "/disconnect": self.disconnect,
            "/recheck": self.recheck,
        }
        for path, view in views.items():
            self.app.add_url_rule(path, view_func=view, methods=["POST"])
        self.app.add_url_rule("/stats", view_func=self.stats)

    def may_read(self, channel: str) -> str | bool:
        user = str(session.get("user", ""))
        if user in self.denied or not (channel in ("news", "team/a", "~") or user.startswith("bob")):
            return False
        return user

    def may_publish(self, _channel: str) -> bool:
        return request.headers.get("Authorization") == SECRETS["publisher"] or session.get("user") == "bob"

    def login(self) -> dict[str, str]:
        session["user"] = request.get_json()
        return {}

    def deny(self) -> dict[str, str]:
        self.denied.add(request.get_json())
        return {}

    def publish(self) -> dict[str, str]:
        body = request.get_json()
        return {
            name: self.sse.publish_to(name[1:], body["data"])
            if name[0] == "~"
            else self.sse.publish(name, body["data"])
            for name in body["channels"]
        }

    def fill(self) -> list[str]:
        """Publish more than sockets hold; return the first 40 characters of each event."""
        channel = self.sse.channel(request.get_json())
        heads = [f"{number:-<40}" for number in range(600)]
        for head in heads:
            channel.publish(head + "x" * 20_000)
        return heads

    def disconnect(self) -> dict[str, str]:
        body = request.get_json()
        self.sse.disconnect(body["identity"])
        return self.publish()

    def recheck(self) -> dict[str, str]:
        self.sse.recheck(request.get_json())
        return {}

    def stats(self) -> dict[str, Any]:
        return self.sse.stats()


def of_tokens(key: str, algorithm: str, **options: Any) -> Site:
    return Site(jwt_authorizer(key, algorithms=[algorithm], audience="streams", **options))


posts = Site(SSE_MAX_EVENT_BYTES=10_000)
posts.sse.publisher(posts.may_publish)

site = Site(SSE_MAX_PENDING_BYTES=50_000_000)
others = {
    "/posts": posts,
    "/listed": Site(SSE_CORS_ORIGINS=["https://listed.example"]),
    "/anyone": Site(SSE_CORS_ORIGINS="*"),
    "/limited": Site(SSE_MAX_CLIENTS_PER_ADDRESS=2),
    "/jwt": of_tokens(SECRETS["tokens"], "HS256"),
    "/jwt-anywhere": of_tokens(SECRETS["tokens"], "HS256", cookie="token", query="access"),
    "/jwt-rsa": of_tokens(SECRETS["public"], "RS256"),
}
app = DispatcherMiddleware(site.app, {path: each.app for path, each in others.items()})

emitters: WeakSet[SseEmitter] = WeakSet()


@emitter_opened.connect
def note(_: Flask, emitter: SseEmitter) -> None:
    emitters.add(emitter)


@site.app.get("/left")
def left() -> dict[str, Any]:
    """Return what is there of all sites' streams."""
    if emitters:
        gc.collect()
    stats = [each.sse.stats() for each in (site, *others.values())]
    return {
        "clients": sum(each["clients"] for each in stats),
        "channels": {name: number for each in stats for name, number in each["channels"].items()},
        "emitters": len(emitters),
    }
