"""What ``stats()``, metrics and signals say of an outage of Redis, and of its end."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.metrics import SseMetrics
from flask_sse_emitters.signals import broker_changed
from flask_sse_emitters.testing import open_stream
from tests.brokers.commands import app_at
from tests.support.redis_server import RedisServer
from tests.support.waiting import until


def test_signal_broker_changed_is_sent_for_an_outage_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "flask_sse_emitters")
    sent: list[tuple[str, Any]] = []

    def note(_: Flask, *, state: str, error: Any) -> None:
        sent.append((state, error))

    with (
        RedisServer() as server,
        app_at(server.url) as (app, sse),
        open_stream(app.test_client(), "/events?channel=a"),
        broker_changed.connected_to(note, app),
    ):
        until(lambda: sse.processes()[0]["channels"] == {"a": 1}, "the client")
        sent.clear()
        server.kill()
        until(lambda: sent, "the end of Redis")
        state, error = sent[0]
        assert state == "degraded"
        assert error in sse.stats()["broker"]["error"]
        server.start()
        until(lambda: len(sent) == 2, "Redis")
        assert sent[1] == ("ok", None)


def test_metrics_show_broker_down_and_publish_failures_in_an_outage() -> None:
    registry = CollectorRegistry()

    def values(*names: str) -> list[float | None]:
        return [registry.get_sample_value(f"sse_{name}") for name in names]

    with RedisServer() as redis, app_at(redis.url, SSE_PUBLISH_SECONDS=0.2) as (_, sse):
        SseMetrics(sse, registry=registry)
        sse.publish("a", 1)
        assert values("broker_up") == [1]
        redis.kill()
        for _ in range(2):
            with pytest.raises(BrokerUnavailable):
                sse.publish("a", 2)
        assert values("broker_up", "publish_failures_total") == [0, 2]
        assert values("events_published_total", "publish_seconds_count") == [1, 1]
