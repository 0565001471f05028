"""Channels on real servers, with a config from the environment; tests inspect and control them over HTTP."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from flask import Blueprint, Flask, current_app, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter, SseEmitters

logging.basicConfig(level=logging.INFO)

sse = SSE()
sse.authorizer(lambda _: True)
views = Blueprint("views", __name__)


@views.get("/connect")
def connect() -> ResponseReturnValue:
    emitter = emitters_of(current_app).add(SseEmitter(max_pending=100_000, max_pending_bytes=10**9))
    log = current_app.logger

    @emitter.on_completion
    def log_completion() -> None:
        log.info("completion after %s", emitter.close_reason)

    return emitter


@views.post("/send")
def send() -> ResponseReturnValue:
    return {"reached": emitters_of(current_app).send(request.get_json())}


@views.post("/publish/<channel>")
def publish(channel: str) -> ResponseReturnValue:
    return {"id": sse.publish(channel, request.get_json())}


@views.get("/stats")
def stats() -> dict[str, Any]:
    return {**sse.stats(), "pid": os.getpid(), "pending": [emitter.pending for emitter in emitters_of(current_app)]}


@views.post("/shutdown")
def shutdown() -> ResponseReturnValue:
    sse.shutdown()
    return sse.stats()


def emitters_of(app: Flask) -> SseEmitters:
    """Return the app's list, beside its channels."""
    found: SseEmitters = app.extensions["emitters"]
    return found


def create_app(name: str, **config: Any) -> Flask:
    app = Flask(name)
    app.config.update({"SSE_HANDOFF": os.environ.get("SSE_HANDOFF", "auto"), **config})
    app.extensions["emitters"] = SseEmitters()
    sse.init_app(app)
    app.register_blueprint(sse.blueprint, url_prefix="/events")
    app.register_blueprint(views)
    return app


app = create_app(__name__, **json.loads(os.environ.get("CONFIG", "{}")))
emitters = emitters_of(app)
