"""The connection on which Redis announces events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..messages import NAMES_PER_COMMAND, KeyNames

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

    def has_message(self) -> bool:
        """Return whether a message has come. Never waits."""
        return bool(self._connection.can_read(0))

    def receive(self) -> tuple[bytes, str, Any]:
        """Return the next message. Waits for the rest of one that has come in part.

        :return: its kind, in Redis's words; its channel, empty where it concerns none; and its data.
        """
        kind, name, data = (*self._connection.read_response(), None)[:3]
        return kind, self._names.channel(name) if kind in (SUBSCRIBED, ANNOUNCED) else "", data

    def _send(self, command: str, names: Sequence[str]) -> None:
        for index in range(0, len(names) or 1, NAMES_PER_COMMAND):
            self._connection.send_command(command, *names[index : index + NAMES_PER_COMMAND], check_health=False)
