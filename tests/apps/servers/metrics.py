"""The channels of ``channels.py`` whose metrics are scraped, from one worker or from many."""

from __future__ import annotations

import os

from flask import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from flask_sse_emitters import metrics
from tests.apps.channels import app, sse

metrics.INTERVAL = float(os.environ["INTERVAL"])
metrics.SseMetrics(sse)


@app.get("/metrics")
def get_metrics() -> Response:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
