"""Channels whose last client has left: they are dropped, and what waited for them is called."""

from __future__ import annotations

import pytest

from flask_sse_emitters.brokers.redis.health import READING, Health
from flask_sse_emitters.brokers.redis.subscriber import topics as module
from flask_sse_emitters.brokers.redis.subscriber.topics import LINGER_SECONDS, Topics
from tests.support.broker_calls import RecordingListener


def test_idle_topic_lingers_for_some_seconds() -> None:
    topics, listener = Topics(Health("redis://x")), RecordingListener()
    topics.add("a", listener, is_first=False)
    topics.remove("a", listener)
    topics.drop_idle()
    assert topics.get("a") is not None
    assert 0 < LINGER_SECONDS <= 5


def test_idle_topic_that_is_dropped_calls_what_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A completed stream that was removed from its channel during an outage ends so."""
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.0)
    health = Health("redis://x")
    topics, listener, called = Topics(health), RecordingListener(), list[str]()
    health.channel_failed(READING, "a", ["the log"], ValueError("foreign entries"))
    topics.add("a", listener, is_first=False)
    assert topics.call_when_synced("a", lambda: called.append("a"))
    topics.remove("a", listener)
    topics.drop_idle()
    assert (topics.get("a"), called) == (None, ["a"])
    assert "troubles" not in health.status(), "nobody reads it any more"
    assert not topics.call_when_synced("a", lambda: called.append("again")), "nothing will be called"
