"""Flask-SSE as its manual has it, with Redis in between."""

from __future__ import annotations

import os

from flask import Flask, request
from flask.typing import ResponseReturnValue
from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ["BENCH_REDIS_URL"]
app.register_blueprint(sse, url_prefix="/events")


@app.post("/publish")
def publish() -> ResponseReturnValue:
    sse.publish(request.get_data(as_text=True))
    return "", 204
