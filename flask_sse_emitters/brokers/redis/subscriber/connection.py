"""The connection on which Redis announces events."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import redis

from ..messages import NAMES_PER_COMMAND, KeyNames

try:
    import hiredis
except ImportError:  # redis-py parses then
    hiredis = None  # type: ignore[assignment]

#: So much is read at a time.
READ_BYTES = 65_536

#: The kinds of messages that concern a channel: Redis has confirmed a subscription, or announces an event.
SUBSCRIBED, ANNOUNCED = b"subscribe", b"message"


class PubSubConnection:
    """Subscribes to the announcements of channels. Only the subscriber's thread may call.

    :param connection: from :meth:`.Client.listening`.
    """

    def __init__(self, connection: Any, names: KeyNames) -> None:
        self.subscribed: set[str] = set()  #: channels that Redis was asked to announce
        self._connection = connection
        self._names = names
        # Past redis-py, which asks the system for each message whether there is one: under gevent, in 50 µs.
        self._descriptor = -1 if hiredis is None else connection.raw_descriptor()
        self._next: Callable[[], Any] = self._next_of_redis_py
        if self._descriptor >= 0:
            self._reader = hiredis.Reader(protocolError=redis.InvalidResponse, replyError=redis.ResponseError)
            self._next = self._reader.gets
        # Redis takes nothing but pings and subscriptions on this connection once it has one.
        self._send("SUBSCRIBE", [names.announcements("") + "here"])

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return int(self._connection.fileno())

    def subscribe(self, channels: Sequence[str]) -> None:
        """Have Redis announce the events of these channels; it confirms each by a message."""
        self.subscribed.update(channels)
        self._send("SUBSCRIBE", [self._names.announcements(channel) for channel in channels])

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Have Redis announce them no more."""
        self.subscribed.difference_update(channels)
        self._send("UNSUBSCRIBE", [self._names.announcements(channel) for channel in channels])

    def ping(self) -> None:
        """Have Redis send a message."""
        self._send("PING", [])

    def messages(self) -> Iterator[tuple[bytes, str, Any]]:
        """Iterate over the messages that have come; the next call goes on where this one was left. Never waits.

        Where very many have come, these are not all: then there is something to read at once again.

        :return: of each its kind, in Redis's words; its channel, empty where it concerns none; and its data.
        """
        has_read = self._descriptor < 0
        while True:
            while (message := self._next()) is not False:
                if isinstance(message, Exception):
                    raise message
                kind, name, data = (*message, None)[:3]
                yield kind, self._names.channel(name) if kind in (SUBSCRIBED, ANNOUNCED) else "", data
            if has_read:
                return
            self._read()
            has_read = True

    def _next_of_redis_py(self) -> Any:
        return self._connection.read_response() if self._connection.can_read(0) else False

    def _read(self) -> None:
        """Take bytes that have come."""
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise redis.ConnectionError("Redis has closed the connection")
        self._reader.feed(data)

    def _send(self, command: str, names: Sequence[str]) -> None:
        for index in range(0, len(names) or 1, NAMES_PER_COMMAND):
            self._connection.send_command(command, *names[index : index + NAMES_PER_COMMAND], check_health=False)
