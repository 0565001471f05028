"""An app with a monitor: tests cause what it shows."""

from __future__ import annotations

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import CloseReason, SseEmitter, SseEmitters
from tests.apps.base import make_app

app, sse = make_app(__name__)
sse.authorizer(lambda _channel: request.args.get("identity") or True)
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


@app.post("/cut-monitors")
def cut_monitors() -> ResponseReturnValue:
    """End the streams of all monitors, so that their pages reconnect."""
    app.extensions["sse_emitters.monitor"].monitors.complete()
    return "", 204
