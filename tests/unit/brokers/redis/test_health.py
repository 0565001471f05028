"""The health of Redis over time: when a failure is forgotten, and how often it is logged."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import redis

from flask_sse_emitters.brokers.redis import health as module
from flask_sse_emitters.brokers.redis.health import (
    DOUBT_SECONDS,
    LISTENING,
    LOG_SECONDS,
    PUBLISHING,
    READING,
    STALE_SECONDS,
    Health,
)

FULL = redis.ResponseError("command not allowed when used memory > 'maxmemory'.")
AWAY = redis.ConnectionError("closed by server")


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_health_forgets_refused_publish_after_stale_seconds(clock: Clock) -> None:
    health = Health("redis://x")
    health.failed(PUBLISHING, FULL)
    clock.now += STALE_SECONDS - 1
    assert health.status()["state"] == "degraded"
    clock.now += 2
    assert health.status()["state"] == "ok"


def test_health_takes_another_write_as_recovery_once_failure_is_old(clock: Clock) -> None:
    health = Health("redis://x")
    health.failed(PUBLISHING, FULL)
    clock.now += DOUBT_SECONDS - 1
    health.wrote()
    assert health.status()["state"] == "degraded"
    clock.now += 2
    health.received()
    assert health.status()["state"] == "degraded", "a full Redis answers, too"
    health.wrote()
    assert health.status()["state"] == "ok"


def test_health_takes_message_as_recovery_once_outage_is_old(clock: Clock) -> None:
    health = Health("redis://x")
    health.failed(PUBLISHING, AWAY)
    health.received()
    assert health.status()["state"] == "degraded"
    clock.now += DOUBT_SECONDS
    health.received()
    assert health.status()["state"] == "ok"


def test_health_logs_outage_that_comes_and_goes_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "flask_sse_emitters")
    health = Health("redis://x")
    for _ in range(3):
        health.failed(READING, AWAY)
        health.worked(READING)
    clock.now += LOG_SECONDS + 1
    health.failed(LISTENING, AWAY)
    health.worked(LISTENING)
    assert ["degraded" in text for text in caplog.messages] == [True, False, True, False]
    assert ("reading failed" in caplog.messages[0], "listening failed" in caplog.messages[2]) == (True, True)
