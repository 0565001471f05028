"""Streams that nothing but a list references, and what the process holds."""

from __future__ import annotations

from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SseEmitter, SseEmitters
from tests.apps.base import make_app
from tests.apps.holdings import holdings

#: A stream that ends before its server has begun it is kept until the attach timeout.
app, sse = make_app(__name__, SSE_ATTACH_SECONDS=5)
emitters = SseEmitters()


@app.get("/connect")
def connect() -> ResponseReturnValue:
    emitter = emitters.add(SseEmitter(timeout=float(request.args["timeout"]), heartbeat=0))
    emitter.try_send("hello")
    emitter.on_completion(lambda: None)
    emitter.on_error(lambda _: None)
    return emitter


@app.get("/count")
def count() -> dict[str, Any]:
    return {"streams": sse.stats()["clients"], "listed": len(emitters)}


app.add_url_rule("/holdings", view_func=holdings)
