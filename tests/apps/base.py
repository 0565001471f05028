"""What most apps have: a config from the environment, channels, and views with which tests steer them."""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Blueprint, Flask, Response, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE


def configured(name: str, **config: Any) -> Flask:
    """Make an app with ``CONFIG`` of the environment, a JSON object, beside this config."""
    app = Flask(name)
    handoff = os.environ.get("SSE_HANDOFF", "auto")
    app.config.update({"SSE_HANDOFF": handoff, **config, **json.loads(os.environ.get("CONFIG", "{}"))})
    return app


def steering(sse: SSE) -> Blueprint:
    views = Blueprint("base", __name__)

    @views.post("/publish/<channel>")
    def publish(channel: str) -> ResponseReturnValue:
        """Publish one event, or ``times`` of them, each with the body as its data."""
        name, times, data = request.args.get("event"), request.args.get("times", 1, int), request.get_json()
        ids = [sse.publish(channel, data, event=name) for _ in range(times)]
        return {"id": ids[-1], "ids": ids}

    @views.post("/publish-to/<identity>")
    def publish_to(identity: str) -> ResponseReturnValue:
        return {"id": sse.publish_to(identity, request.get_json())}

    @views.post("/greet/<channel>")
    def greet(channel: str) -> ResponseReturnValue:
        """Send an event to the list, which has no id."""
        return {"reached": sse.channel(channel).emitters.send(request.get_json())}

    @views.post("/disconnect/<identity>")
    def disconnect(identity: str) -> ResponseReturnValue:
        sse.disconnect(identity)
        return {}

    @views.post("/recheck/<identity>")
    def recheck(identity: str) -> ResponseReturnValue:
        sse.recheck(identity)
        return {}

    @views.post("/shutdown")
    def shutdown() -> ResponseReturnValue:
        sse.shutdown()
        return sse.stats()

    @views.get("/stats")
    def stats() -> ResponseReturnValue:
        return {**sse.stats(), "pid": os.getpid()}

    @views.after_app_request
    def name_worker(response: Response) -> Response:
        response.headers["X-Worker"] = str(os.getpid())
        return response

    return views


def make_app(name: str, **config: Any) -> tuple[Flask, SSE]:
    """Make an app with channels and these views."""
    app = configured(name, **config)
    sse = SSE(app)
    app.register_blueprint(sse.blueprint, url_prefix="/events")
    app.register_blueprint(steering(sse))
    return app, sse
