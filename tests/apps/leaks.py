"""Streams that nothing but a list references, and what the process holds."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter, SseEmitters
from tests.apps.holdings import holdings

app = Flask(__name__)
#: A stream that ends before its server has begun it is kept until the attach timeout.
app.config.update(SSE_ATTACH_SECONDS=5, SSE_HANDOFF=os.environ.get("SSE_HANDOFF", "auto"))
sse = SSE(app)
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


@app.get("/holdings")
def held() -> dict[str, Any]:
    return holdings()
