"""What a process remembers of the events that it has published to Redis."""

from __future__ import annotations

from unittest.mock import MagicMock

from flask_sse_emitters.brokers import Publication
from flask_sse_emitters.brokers.redis.health import Health
from flask_sse_emitters.brokers.redis.messages import KeyNames, KnownEvent
from flask_sse_emitters.brokers.redis.publishing import Publishing
from flask_sse_emitters.wire.frame import Frame


def test_newest_new_event_of_several_is_remembered() -> None:
    """It shows where Redis has lost some. The last of them was published before, with its key."""
    subscriber = MagicMock()
    publishing = Publishing(MagicMock(), KeyNames("sse"), 2.0, Health("redis://x"), subscriber)
    answer = [[b"one-1", 1, b"10", 0, b""], [b"one-2", 1, b"11", 0, b""], [b"one-1", 0, 0, 0, b""]]
    results = publishing._read("a", [Publication("a", Frame(b"", "message"), None)] * 3, answer)
    assert results == [("one-1", True), ("one-2", True), ("one-1", False)]
    subscriber.note_known.assert_called_once_with("a", KnownEvent("one", 2, 11, is_sure=True))
