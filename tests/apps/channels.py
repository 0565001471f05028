"""Channels on real servers: config comes from the environment; tests inspect and control it over HTTP."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter, SseEmitters

logging.basicConfig(level=logging.INFO)

app = Flask(__name__)
app.config.update(json.loads(os.environ.get("CONFIG", "{}")))
app.config["SSE_HANDOFF"] = os.environ.get("SSE_HANDOFF", "auto")
sse = SSE(app)
app.register_blueprint(sse.blueprint, url_prefix="/events")
sse.authorizer(lambda _: True)

#: A list, beside the channels.
emitters = SseEmitters()


@app.get("/connect")
def connect() -> ResponseReturnValue:
    emitter = emitters.add(SseEmitter(max_pending=100_000, max_pending_bytes=10**9))

    @emitter.on_completion
    def log_completion() -> None:
        app.logger.info("completion after %s", emitter.close_reason)

    return emitter


@app.post("/send")
def send() -> ResponseReturnValue:
    return {"reached": emitters.send(request.get_json())}


@app.post("/publish/<channel>")
def publish(channel: str) -> ResponseReturnValue:
    return {"id": sse.publish(channel, request.get_json())}


@app.get("/stats")
def stats() -> dict[str, Any]:
    return {**sse.stats(), "pid": os.getpid(), "pending": [emitter.pending for emitter in emitters]}


@app.post("/shutdown")
def shutdown() -> ResponseReturnValue:
    sse.shutdown()
    return sse.stats()
