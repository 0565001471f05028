"""Channels on real servers, and a list beside them; tests inspect and control both over HTTP."""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, Flask, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_sse_emitters import SSE, SseEmitter, SseEmitters
from tests.apps.base import configured, steering
from tests.apps.runs import running

logging.basicConfig(level=logging.INFO)

sse = SSE()
sse.authorizer(lambda channel: channel != "secret")
views = Blueprint("views", __name__)


@views.get("/")
def page() -> str:
    return "<!doctype html><title>streams</title>"


@views.get("/connect")
def connect() -> ResponseReturnValue:
    heartbeat = request.args.get("heartbeat", type=float)
    emitter = SseEmitter(heartbeat=heartbeat, max_pending=100_000, max_pending_bytes=10**9)
    log = current_app.logger

    @emitter.on_completion
    def log_completion() -> None:
        log.info("completion after %s", emitter.close_reason)

    return emitters_of(current_app).add(emitter)


@views.post("/send")
def send() -> ResponseReturnValue:
    return {"reached": emitters_of(current_app).send(request.get_json())}


@views.post("/end")
def end() -> ResponseReturnValue:
    """End the streams of the list; later streams get a new list."""
    ended, current_app.extensions["emitters"] = emitters_of(current_app), SseEmitters()
    ended.complete()
    return {}


@views.get("/pending")
def pending() -> ResponseReturnValue:
    """Return how many events are pending for each stream of the list."""
    return [emitter.pending for emitter in emitters_of(current_app)]


def emitters_of(app: Flask) -> SseEmitters:
    """Return the app's list, beside its channels."""
    found: SseEmitters = app.extensions["emitters"]
    return found


def create_app(name: str, **config: Any) -> Flask:
    app = configured(name, **config)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
    app.extensions["emitters"] = SseEmitters()
    sse.init_app(app)
    app.register_blueprint(sse.blueprint, url_prefix="/events")
    app.register_blueprint(views)
    app.register_blueprint(steering(sse))
    app.register_blueprint(running(sse))
    return app


app = create_app(__name__)
app.add_url_rule("/state", view_func=app.view_functions["base.stats"])
emitters = emitters_of(app)
