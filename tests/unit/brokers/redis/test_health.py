"""The health of Redis: what errors mean, when a failure is forgotten, and how often it is logged."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import redis

from flask_sse_emitters.brokers.redis.errors import AWAY, KEYS, diagnose, error_text, may_have_run
from flask_sse_emitters.brokers.redis.health import Health
from flask_sse_emitters.brokers.remote import health as module
from flask_sse_emitters.brokers.remote.health import (
    DOUBT_SECONDS,
    LISTENING,
    LOG_SECONDS,
    PUBLISHING,
    READING,
    STALE_SECONDS,
)
from tests.unit.doubles.clock import ManualScheduler

FULL = redis.ResponseError("command not allowed when used memory > 'maxmemory'.")
GONE = redis.ConnectionError("closed by server")


@pytest.fixture
def health(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> Health:
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=scheduler.clock))
    return Health("redis://x")


def is_ok(health: Health) -> bool:
    return bool(health.status()["state"] == "ok")


def test_health_forgets_refused_publish_after_stale_seconds(health: Health, scheduler: ManualScheduler) -> None:
    health.failed(PUBLISHING, FULL)
    scheduler.pass_time(STALE_SECONDS - 1)
    assert not is_ok(health)
    scheduler.pass_time(2)
    assert is_ok(health)


def test_health_takes_another_write_as_recovery_once_failure_is_old(health: Health, scheduler: ManualScheduler) -> None:
    health.failed(PUBLISHING, FULL)
    scheduler.pass_time(DOUBT_SECONDS - 1)
    health.wrote()
    assert not is_ok(health)
    scheduler.pass_time(2)
    health.received()
    assert not is_ok(health), "a full Redis answers, too"
    health.wrote()
    assert is_ok(health)


def test_health_takes_message_as_recovery_once_outage_is_old(health: Health, scheduler: ManualScheduler) -> None:
    health.failed(PUBLISHING, GONE)
    health.received()
    assert not is_ok(health)
    scheduler.pass_time(DOUBT_SECONDS)
    health.received()
    assert is_ok(health)


def test_health_logs_outage_that_comes_and_goes_once(
    health: Health, scheduler: ManualScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "flask_sse_emitters")
    for _ in range(3):
        health.failed(READING, GONE)
        health.worked(READING)
    scheduler.pass_time(LOG_SECONDS + 1)
    health.failed(LISTENING, GONE)
    health.worked(LISTENING)
    assert ["degraded" in text for text in caplog.messages] == [True, False, True, False]
    assert ("reading failed" in caplog.messages[0], "listening failed" in caplog.messages[2]) == (True, True)


OLD = "Error running script (call to f_64db9): @user_script:8: @user_script: 8: "


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (f"{OLD}-OOM command not allowed when used memory > 'maxmemory'.", "memory"),
        (f"{OLD}-READONLY You can't write against a read only replica.", "replica"),
        (f"{OLD}-MISCONF Errors writing to the AOF file: No space left on device", "disk"),
        (f"{OLD}WRONGTYPE Operation against a key holding the wrong kind of value", "keys"),
        ("The cluster is down", "cluster"),
        ("unknown command 'evalsha'", "other"),
    ],
)
def test_errors_of_older_redis_versions_are_diagnosed(text: str, cause: str) -> None:
    error = redis.ResponseError(text)
    assert diagnose(error).cause == cause
    assert not may_have_run(error)


def test_error_of_timeout_or_disconnect_may_have_published() -> None:
    for error in (redis.TimeoutError("Timeout reading from socket"), redis.ConnectionError("closed by server")):
        assert diagnose(error) is AWAY
        assert may_have_run(error)


def test_error_text_omits_position_in_lua_script() -> None:
    error = redis.ResponseError("WRONGTYPE Operation script: 64db933a, on @user_script:8.")
    assert (error_text(error), diagnose(error)) == ("WRONGTYPE Operation", KEYS)
    assert error_text(redis.TimeoutError()) == "TimeoutError"
