"""Flask-SSE as its manual has it, with Redis in between."""

from __future__ import annotations

import os

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ["BENCH_REDIS_URL"]
app.register_blueprint(sse, url_prefix="/events")


@app.post("/publish")
@app.post("/publish/<channel>")
def publish(channel: str = "sse") -> ResponseReturnValue:
    sse.publish(request.get_data(as_text=True), channel=channel)
    return "", 204


@app.post("/nothing")
def nothing() -> str:
    return request.get_data(as_text=True)


@app.get("/plain")
def plain() -> Response:
    return Response(iter([b"data: x\n\n"]), mimetype="text/event-stream")
