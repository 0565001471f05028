"""What a session with Redis does in time: lookups of channels, reports of clients, and channels without clients."""

from __future__ import annotations

import math
import time
from typing import cast
from unittest.mock import MagicMock

import pytest

from flask_sse_emitters.brokers import Listener
from flask_sse_emitters.brokers.listening import topics as module
from flask_sse_emitters.brokers.listening.presence import COUNT_EVERY
from flask_sse_emitters.brokers.listening.topics import Topics
from flask_sse_emitters.brokers.redis.broker import RedisBroker
from flask_sse_emitters.brokers.redis.health import READING, Health
from flask_sse_emitters.brokers.redis.messages import PRESENCE_SECONDS, KeyNames, KnownEvent
from flask_sse_emitters.brokers.redis.scripts.channels import UNUSED_MS
from flask_sse_emitters.brokers.redis.subscriber import session as session_module
from flask_sse_emitters.brokers.redis.subscriber.liveness import Phase
from flask_sse_emitters.brokers.redis.subscriber.presence import Presence
from flask_sse_emitters.brokers.redis.subscriber.session import (
    CHANGES_EVERY,
    SWEEP_SECONDS,
    UNUSED_LOOKUP_SECONDS,
    Session,
)
from flask_sse_emitters.brokers.redis.subscriber.thread import CLUSTER_LOOKUP_SECONDS, LOOKUP_SECONDS
from tests.support.brokers.broker_calls import RecordingListener


def make_session(topics: Topics, lookup_seconds: float = LOOKUP_SECONDS) -> Session:
    mock = MagicMock(**{"raw_descriptor.return_value": -1, "can_read.return_value": False})
    health = Health("redis://x")
    return Session(mock, mock, mock, topics, mock, KeyNames("sse"), health, lookup_seconds, lambda: False)


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
    session = make_session(topics, RedisBroker(url)._subscriber._lookup_seconds)
    session._sweep(topic.looked_up_at + seconds - 1)
    assert not session._lookups.is_pending
    session._sweep(topic.looked_up_at + seconds + SWEEP_SECONDS)
    assert session._lookups.is_pending


def test_channel_is_looked_up_at_once_when_redis_has_confirmed_it() -> None:
    """Between events the session sleeps until something is due, which may be seconds later."""
    topics = Topics(Health("redis://x"))
    topics.add("a", cast(Listener, RecordingListener()), is_first=False)
    session = make_session(topics)
    session._liveness.phase = Phase.SETTLED
    session._work_at = due = time.monotonic() + 3.0
    session._receive()
    assert session._work_at == due
    messages = iter([[b"message", b"sse:{b}@0", b""], [b"subscribe", b"sse:{a}@0", 1], False])
    session._connection._next = lambda: next(messages)
    session._receive()
    assert session._work_at <= time.monotonic()


def test_session_looks_channel_up_before_redis_forgets_it() -> None:
    assert UNUSED_LOOKUP_SECONDS + 2 * SWEEP_SECONDS < UNUSED_MS / 1000
    assert 0 < CLUSTER_LOOKUP_SECONDS <= 30


def test_channels_that_come_at_once_share_one_wake_up_and_one_subscribe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(session_module, "time", MagicMock(**{"monotonic.return_value": now}))
    topics, listener, mock = Topics(Health("redis://x")), cast(Listener, RecordingListener()), MagicMock()
    raw = MagicMock(**{"raw_descriptor.return_value": -1, "can_read.return_value": False})
    presence = MagicMock(due=math.inf)
    session = Session(mock, raw, mock, topics, presence, KeyNames("sse"), mock, LOOKUP_SECONDS, lambda: False)
    subscribed = raw.send_command
    assert topics.add("a", listener, is_first=False)
    session._work(now)
    assert subscribed.call_args.args == ("SUBSCRIBE", "sse:{a}@0"), "the first does not wait"
    before = subscribed.call_count
    assert topics.add("b", listener, is_first=False), "which is when to look again"
    assert not topics.add("c", listener, is_first=False)
    session._work(now + CHANGES_EVERY / 2)
    assert subscribed.call_count == before
    assert session._work_at == pytest.approx(now + CHANGES_EVERY)
    session._work(now + CHANGES_EVERY)
    assert subscribed.call_args.args == ("SUBSCRIBE", "sse:{b}@0", "sse:{c}@0")
    assert subscribed.call_count == before + 1
    assert topics.add("d", listener, is_first=False)


@pytest.mark.parametrize("has_clients", [True, False])
def test_presence_report_without_clients_is_no_proof_of_room(
    has_clients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It only removes something, which a full Redis accepts."""
    health = Health("redis://x")
    monkeypatch.setattr(health, "wrote", wrote := MagicMock())
    topics, listener = Topics(health), RecordingListener()
    topics.add("a", listener, is_first=False)
    if not has_clients:
        topics.remove("a", listener)
    presence = Presence(KeyNames("sse"), "me", health, topics, lambda: None, lambda: None, lambda: None)
    presence.change("a")
    presence.report(MagicMock(is_cluster=False), 1000.0)
    assert wrote.call_count == has_clients


def test_presence_is_confirmed_before_it_expires() -> None:
    assert 2 * COUNT_EVERY < PRESENCE_SECONDS <= 12, "one report may be late"


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
