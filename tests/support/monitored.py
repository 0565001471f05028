"""Apps with a monitor."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask import Flask

from flask_sse_emitters import SSE
from flask_sse_emitters.testing import OpenStream
from tests.support.waiting import until

MONITOR = "/sse-monitor"


TEST_EVENT = {"channel": "orders", "event": "created", "text": "hello", "is_json": False}


def make_app(**config: Any) -> tuple[Flask, SSE]:
    app = Flask(__name__)
    app.config.update(config)
    sse = SSE(app)
    sse.authorizer(lambda _channel: True)
    app.register_blueprint(sse.blueprint, url_prefix="/events")
    app.register_blueprint(sse.monitor)
    return app, sse


def open_app(**config: Any) -> tuple[Flask, SSE]:
    """Make an app whose monitor is public."""
    app, sse = make_app(**config)
    sse.monitor_access(lambda: True)
    return app, sse


def await_event(stream: OpenStream, name: str, wanted: Callable[[Any], bool] = lambda _data: True) -> Any:
    """Return the data of the first event with this name that satisfies ``wanted``."""
    found: list[Any] = []

    def look() -> bool:
        events = [json.loads(event.data) for event in stream.ready() if event.event == name]
        found.extend(data for data in events if wanted(data))
        return bool(found)

    until(look, f"an event {name!r}")
    return found[0]
