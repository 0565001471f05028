"""The deadline of a connection to Redis, as its socket sees it."""

from __future__ import annotations

import pytest
import redis

from flask_sse_emitters.brokers.redis.connections import deadline as module
from flask_sse_emitters.brokers.redis.connections.deadline import DeadlineConnection, with_deadline


class Socket:
    """Notes what timeouts it is given."""

    def __init__(self) -> None:
        self.given: list[float] = []

    def gettimeout(self) -> float | None:
        return self.given[-1] if self.given else None

    def settimeout(self, seconds: float) -> None:
        self.given.append(seconds)


def test_timeout_is_set_to_what_is_left_but_not_for_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    connection: DeadlineConnection = with_deadline(redis.Connection)(socket_timeout=5.0)
    connection._sock = socket = Socket()
    for left in (2.0, 1.999, 1.998, 0.5, 2.0, None, 9.0):
        monkeypatch.setattr(module, "seconds_left", lambda left=left: left)
        connection._limit_next_step()
    connection._sock = None
    assert socket.given == [2.0, 0.5, 2.0, 5.0]
