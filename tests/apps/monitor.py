"""An app with a monitor: config comes from the environment, and tests cause what the monitor shows."""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, CloseReason, SseEmitter, SseEmitters

app = Flask(__name__)
app.config.update(json.loads(os.environ.get("CONFIG", "{}")))
if os.environ.get("SSE_BROKER_URL"):
    app.config["SSE_BROKER_URL"] = os.environ["SSE_BROKER_URL"]
sse = SSE(app)
sse.authorizer(lambda _channel: request.args.get("identity") or True)
app.register_blueprint(sse.blueprint, url_prefix="/events")
app.register_blueprint(sse.monitor, url_prefix="/sse-monitor")
emitters = SseEmitters()

#: Set by tests.
is_open = True


@sse.monitor_access
def may_monitor() -> bool:
    return is_open


@app.post("/open/<state>")
def set_open(state: str) -> ResponseReturnValue:
    global is_open
    is_open = state == "yes"
    return "", 204


@app.post("/events-of/<channel>")
def publish(channel: str) -> ResponseReturnValue:
    """Publish one event, or ``times`` of them, each with the body as its data."""
    name, times = request.args.get("event"), request.args.get("times", 1, int)
    data = request.get_json()
    return {"ids": [sse.publish(channel, data, event=name) for _ in range(times)]}


@app.get("/ends/<reason>")
def end(reason: str) -> SseEmitter:
    """Return a stream that ends for this reason once it has begun; for reasons that do not come from outside."""
    timeout = 0.05 if reason == CloseReason.TIMEOUT.name else None
    emitter = emitters.add(SseEmitter(timeout, max_pending=1, overflow="close"))
    if reason == CloseReason.COMPLETED.name:
        emitter.complete()
    elif reason == CloseReason.ERROR.name:
        emitter.complete_with_error(ValueError("as the test wants it"))
    elif reason == CloseReason.OVERFLOW.name:
        for number in range(3):
            emitter.try_send(number)
    return emitter


@app.get("/slow")
def slow() -> SseEmitter:
    """Return a stream that drops old events if its client is slow."""
    emitter = SseEmitter(max_pending=20, overflow="drop_oldest")
    return emitters.add(emitter)


@app.post("/to-emitters")
def send() -> ResponseReturnValue:
    return {"reached": emitters.send("x" * request.args.get("size", 1, int))}


@app.get("/stats")
def stats() -> dict[str, Any]:
    return sse.stats()


@app.post("/cut-monitors")
def cut_monitors() -> ResponseReturnValue:
    """End the streams of all monitors, so that their pages reconnect."""
    app.extensions["sse_emitters.monitor"].monitors.complete()
    return "", 204
