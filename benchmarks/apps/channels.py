"""This package with channels: ``GET /events/news``, which gets what is posted to ``/publish/news`` or ``/publish``."""

from __future__ import annotations

from flask import Flask, Response, request

from flask_sse_emitters import SSE

app = Flask(__name__)
app.config.from_prefixed_env("BENCH")  # BENCH_SSE_HISTORY, ...
sse = SSE(app)
app.register_blueprint(sse.blueprint)
sse.authorizer(lambda _: True)


@app.post("/publish")
@app.post("/publish/<channel>")
def publish(channel: str = "news") -> str:
    return sse.publish(channel, request.get_data(as_text=True))


@app.post("/nothing")
def nothing() -> str:
    return request.get_data(as_text=True)


@app.get("/plain")
def plain() -> Response:
    return Response(iter([b"data: x\n\n"]), mimetype="text/event-stream")
