"""Channels whose metrics are scraped, from one worker or from many."""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask, Response
from flask.typing import ResponseReturnValue
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from flask_sse_emitters import SSE, metrics

metrics.INTERVAL = float(os.environ.get("INTERVAL", metrics.INTERVAL))

app = Flask(__name__)
app.config.update(json.loads(os.environ.get("CONFIG", "{}")))
sse = SSE(app)
app.register_blueprint(sse.blueprint, url_prefix="/events")
sse.authorizer(lambda channel: channel != "secret")
metrics.SseMetrics(sse)


@app.after_request
def name_worker(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response


@app.get("/state")
def state() -> dict[str, Any]:
    return {"pid": os.getpid(), "clients": sse.stats()["clients"]}


@app.post("/publish/<channel>/<int:count>")
def publish(channel: str, count: int) -> list[str]:
    return [sse.publish(channel, number) for number in range(count)]


@app.get("/metrics")
def get_metrics() -> ResponseReturnValue:
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
