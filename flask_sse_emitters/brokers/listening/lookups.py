"""What is to be looked up at the server, and when."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import islice
from typing import TypeAlias

from ..remote.clock import ServerClock
from ..remote.health import READING, Health
from .lookup import Lookup
from .topics import Topic, Topics

#: Seconds until a channel that could not be looked up is looked up again.
RETRY_SECONDS = 1.0

#: A channel that has a run is looked up so many seconds after that would be dead.
LATER_SECONDS = 0.05

#: Calls that wait until all of a topic is delivered that was published before.
Waiting: TypeAlias = dict[Topic, list[Callable[[], object]]]


class BaseLookups(ABC):
    """The lookups of one connection. Only the subscriber's thread may call.

    :param most: so many channels are looked up in one go.
    """

    def __init__(self, topics: Topics, clock: ServerClock, health: Health, most: int) -> None:
        self._topics = topics
        self._clock = clock
        self._health = health
        self._most = most
        self._pending: dict[Topic, None] = {}
        self._failed: dict[Topic, None] = {}  # are pending again at this time:
        self._retry_at = 0.0
        self._watched: list[tuple[float, str]] = []  # when to look up channels that have a run, as a heap

    @property
    def due(self) -> float:
        """The time at which to :meth:`run` again, by ``time.monotonic``."""
        if self._pending:
            return 0.0
        watched = self._watched[0][0] if self._watched else math.inf
        return min(self._retry_at if self._failed else math.inf, watched)

    @property
    def is_pending(self) -> bool:
        """Whether some are to be done at once; not those that have failed."""
        return bool(self._pending)

    def request(self, topic: Topic) -> None:
        """Look the topic up in the next :meth:`run`."""
        self._pending[topic] = None

    def run(self) -> None:
        """Look up some of the channels, and deliver what is new, or start their listeners with a new log.

        It raises an error of the server's client where the server cannot be reached.
        """
        self._request_watched()
        if self._failed and time.monotonic() > self._retry_at:
            self._pending.update(self._failed)
            self._failed.clear()
        topics = list(islice(self._pending, self._most))
        for topic in topics:
            del self._pending[topic]
        topics = [topic for topic in topics if self._topics.get(topic.name) is topic]
        if topics:
            waiting: Waiting = {}
            try:
                self._look_up(topics, waiting)
            finally:
                self._topics.put_back_calls(waiting)
        if not self._failed and not self._pending:  # also where those that could not be read have gone
            self._health.worked(READING)

    @abstractmethod
    def _look_up(self, topics: Sequence[Topic], waiting: Waiting) -> None:
        """Look these up, and make the calls that wait for that.

        :param waiting: gets the calls of each topic that is looked up, for as long as they are not made.
        """

    def _retry_later(self, topics: Iterable[Topic]) -> None:
        if not self._failed:
            self._retry_at = time.monotonic() + RETRY_SECONDS
        self._failed.update(dict.fromkeys(topics))

    def _watch_run(self, topic: Topic, lookup: Lookup) -> None:
        """Look the topic up again when its run would be dead: it is either renewed by then, or ended by that lookup."""
        topic.look_at = math.inf
        if lookup.run_until_ms:
            seconds = max(0.0, (lookup.run_until_ms - lookup.now_ms) / 1000) + LATER_SECONDS
            topic.look_at = time.monotonic() + seconds
            heappush(self._watched, (topic.look_at, topic.name))

    def _request_watched(self) -> None:
        while self._watched and self._watched[0][0] <= time.monotonic():
            when, name = heappop(self._watched)
            topic = self._topics.get(name)
            if topic is not None and topic.look_at == when:  # else it was looked up meanwhile
                self.request(topic)
