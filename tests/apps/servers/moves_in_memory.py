"""Channels that one process keeps, and lists with and without a name, whose streams are to move at a reload."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter, SseEmitters

logging.basicConfig(level=logging.INFO)

app = Flask(__name__)
app.config.update(SSE_HISTORY=100_000, SSE_RETRY=1000)
sse = SSE(app)
app.register_blueprint(sse.blueprint, url_prefix="/events")
sse.authorizer(lambda _: request.args.get("user") or True)
sse.channels("room:*", members=True)

lists = {"chart": SseEmitters("chart"), "unnamed": SseEmitters()}


@app.get("/stats")
def stats() -> ResponseReturnValue:
    return {"pid": os.getpid(), **sse.stats()}


@app.post("/publish/<channel>")
def publish(channel: str) -> ResponseReturnValue:
    return {"id": sse.publish(channel, request.args["text"], key=request.args.get("key"))}


@app.post("/runs/<channel>")
def run(channel: str) -> ResponseReturnValue:
    """Publish a first event, and others once there is a file of this name."""
    gate = Path(request.args["file"])

    def items() -> Iterator[str]:
        yield "first"
        while not gate.exists():
            time.sleep(0.01)
        yield from ("second", "third")

    sse.channel(channel).publish_from(items())
    return "", 204


@app.get("/lists/<name>")
def connect(name: str) -> ResponseReturnValue:
    return lists[name].add(SseEmitter())


@app.post("/lists/<name>")
def send(name: str) -> ResponseReturnValue:
    return {"reached": lists[name].send(request.args["text"])}
