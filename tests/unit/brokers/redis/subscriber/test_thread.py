"""The thread that listens to Redis: how soon it tries again, and what follows when it cannot be started."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from flask_sse_emitters.brokers.listening import thread as module
from flask_sse_emitters.brokers.listening.thread import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, SPREAD
from flask_sse_emitters.brokers.redis.connections.client import BEGIN_SECONDS, Client
from flask_sse_emitters.brokers.redis.health import Health
from flask_sse_emitters.brokers.redis.messages import KeyNames
from flask_sse_emitters.brokers.redis.subscriber import Subscriber
from flask_sse_emitters.runtime.waiter import WakeupSocket
from tests.support.brokers.broker_calls import RecordingListener
from tests.unit.doubles.clock import ManualScheduler


def test_subscriber_reconnects_within_two_seconds() -> None:
    assert LONGEST_WAIT_SECONDS * (1 + SPREAD) + 0.5 < 2
    assert BEGIN_SECONDS <= 2


def test_subscriber_thread_that_fails_to_start_is_retried(
    scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(24, "Too many open files"), RuntimeError("can't start new thread")]
    wakeups: list[WakeupSocket] = []

    class FirstFails(WakeupSocket):
        def __init__(self) -> None:
            if len(failures) == 2:
                raise failures.pop(0)
            super().__init__()
            wakeups.append(self)

    class SecondFails(threading.Thread):
        def start(self) -> None:
            if failures:
                raise failures.pop()

    monkeypatch.setattr(module, "SCHEDULER", scheduler)
    monkeypatch.setattr(module, "WakeupSocket", FirstFails)
    monkeypatch.setattr(module, "threading", SimpleNamespace(Thread=SecondFails))
    health = Health("redis://x")
    subscriber = Subscriber(pytest.fail, KeyNames("sse"), "me", health)
    subscriber.add("a", RecordingListener())
    scheduler._call_due()
    assert "Too many open files" in health.status()["error"]
    scheduler.pass_time(LONGEST_WAIT_SECONDS)
    assert "can't start new thread" in health.status()["error"]
    scheduler.pass_time(LONGEST_WAIT_SECONDS)
    assert (failures, len(wakeups)) == ([], 2)
    assert [wakeup.fileno() < 0 for wakeup in wakeups] == [True, False], "the one without a thread is closed"
    wakeups[1].close()


def test_subscriber_thread_that_dies_is_replaced(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a greenlet that is killed does."""
    thread = MagicMock()

    def die() -> Client:
        raise SystemExit

    monkeypatch.setattr(module, "SCHEDULER", scheduler)
    monkeypatch.setattr(module, "threading", SimpleNamespace(Thread=thread))
    health = Health("redis://x")
    subscriber = Subscriber(die, KeyNames("sse"), "me", health)
    with pytest.raises(SystemExit):
        subscriber._run(WakeupSocket())
    assert health.status()["state"] == "degraded"
    scheduler.pass_time(FIRST_WAIT_SECONDS)
    assert thread.call_args.kwargs["name"] == "sse-redis"
    thread.return_value.start.assert_called_once()
    assert subscriber._wakeup is not None
    subscriber._wakeup.close()
