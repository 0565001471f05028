"""When a session looks channels up in Redis though nothing has come."""

from __future__ import annotations

import time
from typing import cast
from unittest.mock import MagicMock

import pytest

from flask_sse_emitters.brokers import Listener
from flask_sse_emitters.brokers.redis.broker import RedisBroker
from flask_sse_emitters.brokers.redis.health import Health
from flask_sse_emitters.brokers.redis.messages import KeyNames, KnownEvent
from flask_sse_emitters.brokers.redis.scripts import UNUSED_MS
from flask_sse_emitters.brokers.redis.subscriber.session import SWEEP_SECONDS, UNUSED_LOOKUP_SECONDS, Session
from flask_sse_emitters.brokers.redis.subscriber.thread import CLUSTER_LOOKUP_SECONDS, LOOKUP_SECONDS
from flask_sse_emitters.brokers.redis.subscriber.topics import Topics
from tests.support.broker_calls import RecordingListener


@pytest.mark.parametrize(
    ("url", "newest", "seconds"),
    [
        ("redis://x", 7, LOOKUP_SECONDS),
        ("redis://x", 0, UNUSED_LOOKUP_SECONDS),
        ("redis+cluster://x", 7, CLUSTER_LOOKUP_SECONDS),
        ("redis+cluster://x", 0, CLUSTER_LOOKUP_SECONDS),
    ],
    ids=["once a day", "without events", "in a cluster", "in a cluster without events"],
)
def test_session_looks_channel_up_again_after_some_time(url: str, newest: int, seconds: float) -> None:
    health = Health(url)
    topics = Topics(health)
    topics.add("a", cast(Listener, RecordingListener()), is_first=False)
    topic = topics.all()[0]
    topic.is_behind, topic.looked_up_at = False, time.monotonic()
    topic.known = KnownEvent("one", newest, 1, is_sure=True)
    broker = RedisBroker(url)
    session = Session(
        MagicMock(),
        MagicMock(),
        MagicMock(),
        topics,
        MagicMock(),
        KeyNames("sse"),
        health,
        broker._subscriber._lookup_seconds,
        lambda: False,
    )
    session._sweep(topic.looked_up_at + seconds - 1)
    assert not session._lookups.is_pending
    session._sweep(topic.looked_up_at + seconds + SWEEP_SECONDS)
    assert session._lookups.is_pending


def test_session_looks_channel_up_before_redis_forgets_it() -> None:
    assert UNUSED_LOOKUP_SECONDS + 2 * SWEEP_SECONDS < UNUSED_MS / 1000
    assert 0 < CLUSTER_LOOKUP_SECONDS <= 30
