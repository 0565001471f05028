"""The application of the soak: public channels, and the figures of a worker."""

from __future__ import annotations

import gc
import os
from collections import Counter
from typing import Any

from flask import Flask, request
from greenlet import greenlet

from flask_sse_emitters import SSE

app = Flask(__name__)
app.config["SSE_BROKER_URL"] = os.environ["SSE_BROKER_URL"]
sse = SSE(app)
app.register_blueprint(sse.blueprint, url_prefix="/events")
for number in range(int(os.environ["SOAK_CHANNELS"])):
    sse.channel(f"soak-{number}", public=True)


@app.get("/state")
def state() -> dict[str, Any]:
    return {"pid": os.getpid()}


@app.get("/figures")
def figures() -> dict[str, Any]:
    """Return the figures; with ``?objects=1`` also the counts of greenlets and other objects, by visiting them all."""
    stats = sse.stats()
    found = {key: stats[key] for key in ("pid", "clients", "outlets", "deliveries", "replayed", "pending", "gaps")}
    return {**found, "closed": stats["closed"], **(_objects() if "objects" in request.args else {})}


def _objects() -> dict[str, Any]:
    kinds = Counter(type(each) for each in gc.get_objects())
    greenlets = sum(number for kind, number in kinds.items() if issubclass(kind, greenlet))
    names: Counter[str] = Counter()
    for kind, number in kinds.items():
        names[f"{kind.__module__}.{kind.__qualname__}"] += number
    return {"greenlets": greenlets, "objects": kinds.total(), "kinds": dict(names.most_common(60))}
