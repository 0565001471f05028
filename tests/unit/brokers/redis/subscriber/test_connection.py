"""The connection on which Redis announces events."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from flask_sse_emitters.brokers.redis.messages import KeyNames
from flask_sse_emitters.brokers.redis.subscriber.connection import ANNOUNCED, PubSubConnection

MESSAGE = b"*3\r\n$7\r\nmessage\r\n$9\r\nsse:{a}@0\r\n$1\r\n%d\r\n"


class Connection:
    """What redis-py's is for this, to one end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def raw_descriptor(self) -> int:
        return self._end.fileno()

    def send_command(self, *_command: Any, check_health: bool) -> None:
        assert not check_health


@pytest.fixture
def connection() -> Iterator[tuple[PubSubConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield PubSubConnection(Connection(ours), KeyNames("sse")), theirs


def test_messages_that_come_in_pieces_are_received_whole(connection: tuple[PubSubConnection, socket.socket]) -> None:
    """And nothing waits for the rest of one: the thread has other things to do."""
    listening, redis_end = connection
    sent = b"".join(MESSAGE % number for number in range(3))
    assert list(listening.messages()) == []
    received: list[tuple[bytes, str, Any]] = []
    for piece in (sent[:70], sent[70:71], sent[71:]):
        redis_end.sendall(piece)
        received += listening.messages()
    assert received == [(ANNOUNCED, "a", b"%d" % number) for number in range(3)]


def test_messages_that_are_left_come_next_time(connection: tuple[PubSubConnection, socket.socket]) -> None:
    listening, redis_end = connection
    redis_end.sendall(b"".join(MESSAGE % number for number in range(3)))
    received = [next(listening.messages()), next(listening.messages())]
    received += listening.messages()
    assert received == [(ANNOUNCED, "a", b"%d" % number) for number in range(3)]


def test_refusal_by_redis_is_raised(connection: tuple[PubSubConnection, socket.socket]) -> None:
    listening, redis_end = connection
    redis_end.sendall(b"-NOPERM No permissions to access a channel\r\n")
    with pytest.raises(redis.ResponseError, match="No permissions"):
        next(listening.messages())


def test_end_of_the_connection_is_raised(connection: tuple[PubSubConnection, socket.socket]) -> None:
    listening, redis_end = connection
    redis_end.close()
    with pytest.raises(redis.ConnectionError):
        next(listening.messages())
