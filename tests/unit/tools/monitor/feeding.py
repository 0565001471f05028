"""A feeder with monitors, and the figures of other processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask, Response

from flask_sse_emitters import SSE
from flask_sse_emitters.brokers import Broker
from flask_sse_emitters.runtime.scheduler import SCHEDULER, Scheduler
from flask_sse_emitters.tools.monitor.feeder import MonitorFeeder


def feeder_at(scheduler: Scheduler = SCHEDULER) -> tuple[MonitorFeeder, SSE, Broker]:
    """Return the feeder of a new app, its extension and its broker."""
    sse = SSE(Flask(__name__))
    return MonitorFeeder(sse.find_state(), scheduler), sse, sse.find_state().channels.broker


@contextmanager
def watching(feeder: MonitorFeeder, channel: str | None = None) -> Iterator[Response]:
    with feeder._state.app.test_request_context():
        response = feeder.open_stream(channel)
    body = response.iter_encoded()
    next(body)
    yield response
    response.close()


def fail() -> Any:
    raise ZeroDivisionError("the database is away")


def process(name: str, clients: int, **more: Any) -> dict[str, Any]:
    figures = {"clients": clients, "deliveries": 0, "published": 0, "broker": {"state": "ok"}, "channels": {}}
    return {"id": name, "age": 0.0, "events": {}, "slow": [], "closed": {}, **figures, **more}
