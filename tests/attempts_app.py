"""Several sites in one process, each with something to hide from whoever is not bob; tests steer them over HTTP."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from flask import Flask, request, session
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_sse_emitters import SSE
from flask_sse_emitters.access import Rule, jwt_authorizer

logging.basicConfig(level=logging.INFO)

SECRETS: dict[str, str] = json.loads(os.environ["SECRETS"])


class Site:
    """``news`` and ``team/a`` are for all who have a session, ``open`` is for anybody; all else is bob's."""

    def __init__(self, rule: Rule | None = None, **config: Any) -> None:
        self.app = Flask(__name__)
        self.app.config.update(SECRET_KEY=SECRETS["session"], **config)
        self.sse = SSE(self.app)
        self.sse.channel("open", public=True)
        self.sse.authorizer(rule or self.may_read)
        self.denied: set[str] = set()  # who has a session, but nothing any more
        self.app.register_blueprint(self.sse.blueprint, url_prefix="/events")
        for path, view in {
            "/login": self.login,
            "/deny": self.deny,
            "/publish": self.publish,
            "/fill": self.fill,
            "/disconnect": self.disconnect,
            "/recheck": self.recheck,
        }.items():
            self.app.add_url_rule(path, view_func=view, methods=["POST"])
        self.app.add_url_rule("/stats", view_func=self.stats)

    def may_read(self, channel: str) -> str | bool:
        user = str(session.get("user", ""))
        if user in self.denied or not (channel in ("news", "team/a", "~") or user.startswith("bob")):
            return False
        return user

    def may_publish(self, channel: str) -> bool:
        return request.headers.get("Authorization") == SECRETS["publisher"] or session.get("user") == "bob"

    def login(self) -> dict[str, str]:
        session["user"] = request.get_json()
        return {}

    def deny(self) -> dict[str, str]:
        self.denied.add(request.get_json())
        return {}

    def publish(self) -> dict[str, str]:
        said = request.get_json()
        return {
            name: self.sse.publish_to(name[1:], said["data"])
            if name[0] == "~"
            else self.sse.publish(name, said["data"])
            for name in said["channels"]
        }

    def fill(self) -> dict[str, list[str]]:
        """Publish events of 20 kB: so many, or until a client has some pending; of each the first 40 characters."""
        said = request.get_json()
        channel = self.sse.channel(said["channel"])
        heads = []
        for number in range(said["count"]):
            heads.append(f"{number:-<40}")
            channel.publish(heads[-1] + "x" * 20_000)
            if said["until_pending"] and any(emitter.pending > 1 for emitter in channel.emitters):
                break
        return {"heads": heads}

    def disconnect(self) -> dict[str, str]:
        said = request.get_json()
        self.sse.disconnect(said["identity"])
        return self.publish()

    def recheck(self) -> dict[str, str]:
        self.sse.recheck(request.get_json())
        return {}

    def stats(self) -> dict[str, Any]:
        return {**self.sse.stats(), "owned": len(self.sse._state().streams._owned)}


def of_tokens(key: str, algorithm: str, **options: Any) -> Site:
    return Site(jwt_authorizer(key, algorithms=[algorithm], audience="streams", **options))


posts = Site(SSE_MAX_EVENT_BYTES=10_000)
posts.sse.publisher(posts.may_publish)

site = Site()
app = DispatcherMiddleware(
    site.app,
    {
        "/posts": posts.app,
        "/listed": Site(SSE_CORS_ORIGINS=["https://listed.example"]).app,
        "/anyone": Site(SSE_CORS_ORIGINS="*").app,
        "/limited": Site(SSE_MAX_CLIENTS_PER_ADDRESS=2).app,
        "/jwt": of_tokens(SECRETS["tokens"], "HS256").app,
        "/jwt-anywhere": of_tokens(SECRETS["tokens"], "HS256", cookie="token", query="access").app,
        "/jwt-rsa": of_tokens(SECRETS["public"], "RS256").app,
    },
)
