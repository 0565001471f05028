"""Asking Redis: all scripts that publish nothing of their caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis

from ...errors import BrokerUnavailable
from ..remote.green import require_patched_sockets
from .connections.client import Clients
from .connections.deadline import within
from .errors import diagnose, error_text
from .health import Health
from .messages import KeyNames, read_arguments
from .scripts import Script
from .subscriber import Subscriber

T = TypeVar("T")


class Asking:
    """Runs scripts, and reads their answers. Any thread may call, and waits for Redis.

    :param seconds: how long that may take.
    :param subscriber: knows the newest events.
    """

    def __init__(
        self, clients: Clients, names: KeyNames, seconds: float, health: Health, subscriber: Subscriber
    ) -> None:
        self._clients = clients
        self._names = names
        self._seconds = seconds
        self._health = health
        self._subscriber = subscriber

    def ask(
        self, wanted: str, read: Callable[[Any], T], script: Script, keys: Sequence[str], arguments: Sequence[Any] = ()
    ) -> T:
        """Run a script.

        :param wanted: what Redis should do, for the error.
        :param read: returns what the answer means, or raises a :class:`ValueError`.
        :raises BrokerUnavailable: where Redis cannot be reached in time, or answers something else.
        """
        require_patched_sockets("Redis")
        try:
            with within(self._seconds):
                return read(self._clients.get().run(script, keys, arguments))
        except (redis.RedisError, OSError, ValueError) as error:
            advice = self._health.advice(diagnose(error), keys)
            raise BrokerUnavailable(f"Redis did not {wanted} ({error_text(error)}): {advice}") from error

    def ask_of(
        self, channel: str, wanted: str, read: Callable[[Any], T], script: Script, arguments: Sequence[Any] = ()
    ) -> T:
        """Run a script that reads a channel first: see :meth:`ask`."""
        first = read_arguments(self._names.announcements(channel), self._subscriber.known(channel))
        return self.ask(wanted, read, script, self._names.keys(channel), [*first, *arguments])
