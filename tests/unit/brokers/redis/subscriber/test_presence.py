"""Reports of a process's clients: which of them show that Redis can be written to."""

from __future__ import annotations

from typing import Any, cast

import pytest

from flask_sse_emitters.brokers.redis.client import Client
from flask_sse_emitters.brokers.redis.health import Health
from flask_sse_emitters.brokers.redis.messages import PRESENCE_SECONDS, KeyNames
from flask_sse_emitters.brokers.redis.subscriber.presence import COUNT_EVERY, Presence
from flask_sse_emitters.brokers.redis.subscriber.topics import Topics
from tests.support.broker_calls import RecordingListener


class Writes(Health):
    """Counts what is taken as a write."""

    count = 0

    def wrote(self) -> None:
        self.count += 1


class AcceptingClient:
    is_cluster = False

    def run(self, *_arguments: Any) -> int:
        return 1


@pytest.mark.parametrize("has_clients", [True, False])
def test_presence_report_without_clients_is_no_proof_of_room(has_clients: bool) -> None:
    """It only removes something, which a full Redis accepts."""
    health = Writes("redis://x")
    topics, listener = Topics(health), RecordingListener()
    topics.add("a", listener, is_first=False)
    if not has_clients:
        topics.remove("a", listener)
    presence = Presence(KeyNames("sse"), "me", health, topics, lambda: None, lambda: None, lambda: None)
    presence.change("a")
    presence.report(cast(Client, AcceptingClient()), 1000.0)
    assert health.count == has_clients


def test_presence_is_confirmed_before_it_expires() -> None:
    assert 2 * COUNT_EVERY < PRESENCE_SECONDS <= 12, "one report may be late"
