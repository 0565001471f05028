"""An app behind nginx, as documented: channels, a list, and ProxyFix."""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_sse_emitters import SSE, SseEmitter, SseEmitters

app = Flask(__name__)
app.config.update(json.loads(os.environ.get("CONFIG", "{}")))
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
sse = SSE(app)
app.register_blueprint(sse.blueprint, url_prefix="/events")
sse.channel("news", public=True)

emitters = SseEmitters()


@app.get("/")
def page() -> str:
    return "<!doctype html><title>streams</title>"


@app.get("/connect")
def connect() -> SseEmitter:
    beat = float(request.args["heartbeat"]) if "heartbeat" in request.args else None
    emitter = SseEmitter(heartbeat=beat)
    return emitters.add(emitter)


@app.post("/send")
def send() -> ResponseReturnValue:
    return {"reached": emitters.send(request.get_json())}


@app.post("/end")
def end() -> ResponseReturnValue:
    """End the streams of the list; later streams get a new list."""
    global emitters
    ended, emitters = emitters, SseEmitters()
    ended.complete()
    return {}


@app.post("/publish")
def publish() -> ResponseReturnValue:
    return {"id": sse.publish("news", request.get_json())}


@app.get("/stats")
def stats() -> dict[str, Any]:
    return sse.stats()
