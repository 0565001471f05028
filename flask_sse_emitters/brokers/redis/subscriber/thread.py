"""The thread that listens to Redis: see :mod:`..listening.thread`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis

from ....runtime.waiter import WakeupSocket
from ...listening.thread import LEAVE_SECONDS, ListeningThread, yield_on_greenlets
from ...remote.health import Health
from ..connections.client import Client
from ..connections.deadline import within
from ..messages import KeyNames
from .presence import Presence
from .session import Session

log = logging.getLogger("flask_sse_emitters.brokers.redis_ear")

#: Seconds between two lookups of a channel, so that Redis does not forget it. The nodes of a cluster may lose an
#: announcement on the way to each other, and nothing shows that until the next one.
LOOKUP_SECONDS, CLUSTER_LOOKUP_SECONDS = 86_400.0, 20.0


class Subscriber(ListeningThread):
    """Listens to Redis, on a thread that starts with the first listener. Any thread may call, and none waits.

    :param client: returns the way to Redis for the thread that calls.
    :param process: the id of this process.
    :param about: see :attr:`.Broker.about`.
    :param lookup_seconds: a channel is looked up so often, though nothing shows that it should be.
    """

    _presence: Presence

    def __init__(
        self,
        client: Callable[[], Client],
        names: KeyNames,
        process: str,
        health: Health,
        about: Callable[[], Mapping[str, Any] | None] = lambda: None,
        lookup_seconds: float = LOOKUP_SECONDS,
    ) -> None:
        self._client = client
        self._names = names
        self._process = process
        self._about = about
        self._lookup_seconds = lookup_seconds
        super().__init__("sse-redis", health, (redis.RedisError, OSError), log)

    def _make_presence(self) -> Presence:
        args = self._names, self._process, self._health, self._topics, self._about, self._wake, yield_on_greenlets
        return Presence(*args)

    @contextmanager
    def _session(self, wakeup: WakeupSocket) -> Iterator[Session]:
        client = self._client()
        with client.listening() as connection:
            yield Session(
                client,
                connection,
                wakeup,
                self._topics,
                self._presence,
                self._names,
                self._health,
                self._lookup_seconds,
                self.is_stopping,
            )

    def _take_back(self) -> None:
        with within(LEAVE_SECONDS):
            self._presence.leave(self._client())
