"""This package: each client has a timeout, a heartbeat and two callbacks."""

from __future__ import annotations

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter, SseEmitters

from .computing import Computing
from .events import stamped

app = Flask(__name__)
app.config.from_prefixed_env("BENCH")  # BENCH_SSE_HANDOFF, ...
sse = SSE(app)

emitters = SseEmitters()
computing = Computing()


@app.get("/events")
def events() -> SseEmitter:
    emitter = emitters.add(SseEmitter(timeout=1800))
    emitter.on_completion(completed)
    emitter.on_error(failed)
    return emitter


@app.post("/publish")
def publish() -> ResponseReturnValue:
    emitters.send(request.get_data(as_text=True))
    return "", 204


@app.post("/broadcast/<int:number>")
def broadcast(number: int) -> str:
    emitters.send(stamped(number))
    return ""


@app.post("/computing/<what>")
def compute(what: str) -> str:
    return computing.begin() if what == "begin" else computing.end()


@app.get("/plain")
def plain() -> Response:
    return Response(iter([b"data: x\n\n"]), mimetype="text/event-stream")


def completed() -> None:
    pass


def failed(error: BaseException) -> None:
    pass
