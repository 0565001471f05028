"""Looking channels up in Redis: those that were just subscribed to, and those that may lack events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import islice
from typing import Any

import redis

from ....runtime.calls import call_and_log
from ....runtime.gevent_loop import TIME_SLICE_SECONDS
from ...listening.clock import ServerClock
from ...listening.health import READING, Health
from ...listening.lookup import Lookup
from ...listening.topics import Topic, Topics
from ..connections.client import Client
from ..errors import KEYS, diagnose
from ..messages import KeyNames, read_arguments, read_lookup, read_time
from ..scripts.channels import LOOK_UP

#: Seconds until a channel that could not be looked up is looked up again.
RETRY_SECONDS = 1.0

#: A channel that has a run is looked up so many seconds after that would be dead.
LATER_SECONDS = 0.05

#: So many channels are looked up in one go.
MAX_LOOKUPS = 20


class Lookups:
    """The lookups of one connection. Only the subscriber's thread may call.

    :param yield_now: lets other greenlets run; called now and then.
    """

    def __init__(
        self,
        client: Client,
        topics: Topics,
        clock: ServerClock,
        names: KeyNames,
        health: Health,
        yield_now: Callable[[], object],
    ) -> None:
        self._client = client
        self._topics = topics
        self._clock = clock
        self._names = names
        self._health = health
        self._yield_now = yield_now
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

    def require(self, topic: Topic) -> None:
        """Look the topic up in the next :meth:`run`, before any more of it is delivered."""
        topic.is_behind = True
        self._pending[topic] = None

    def run(self) -> None:
        """Look up some of the channels, and deliver what is new, or start their listeners with a new log.

        :raises redis.RedisError: where Redis cannot be reached.
        """
        self._request_watched()
        if self._failed and time.monotonic() > self._retry_at:
            self._pending.update(self._failed)
            self._failed.clear()
        topics = list(islice(self._pending, MAX_LOOKUPS))
        for topic in topics:
            del self._pending[topic]
        topics = [topic for topic in topics if self._topics.get(topic.name) is topic]
        if topics:
            waiting: dict[Topic, list[Callable[[], object]]] = {}
            try:
                self._look_up(topics, waiting)
            finally:
                self._topics.put_back_calls(waiting)
        if not self._failed and not self._pending:  # also where those that could not be read have gone
            self._health.worked(READING)

    def _look_up(self, topics: Sequence[Topic], waiting: dict[Topic, list[Callable[[], object]]]) -> None:
        first = self._topics.first
        others = [topic for topic in topics if topic is not first]
        asked = others if first is None else [*others, first]  # last: so it knows no less than they do
        waiting.update((topic, self._topics.take_calls(topic)) for topic in asked)
        answers = self._client.run_all(LOOK_UP, [self._call(topic) for topic in asked])
        self._note_time(answers)
        if first is not None and not self._take_first(first, answers[-1]):
            self._failed.update(dict.fromkeys([*others, *self._pending]))
            self._pending.clear()
            return
        slice_ends = time.monotonic() + TIME_SLICE_SECONDS
        for topic, answer in zip(asked, answers, strict=True):
            if topic is first or self._take(topic, answer):
                for call in waiting.pop(topic):
                    call_and_log(call)
            if time.monotonic() > slice_ends:
                self._yield_now()
                slice_ends = time.monotonic() + TIME_SLICE_SECONDS

    def _take_first(self, first: Topic, answer: Any) -> bool:
        """Deliver all of the first topic before anything of the others.

        :return: whether that is done. Else the others wait.
        """
        self._failed.pop(first, None)
        while True:
            self._pending.pop(first, None)
            if first.log is None and _is_full(answer):  # nothing has begun there, nor can it now
                self._retry_later(first)
                return True
            if self._take(first, answer):
                return True
            if first in self._failed:
                return False
            [answer] = self._client.run_all(LOOK_UP, [self._call(first)])

    def _call(self, topic: Topic) -> tuple[list[str], list[Any]]:
        log, known = topic.building or topic.log, self._topics.known(topic.name)
        if log is not None and known.epoch != log.epoch:
            known = topic.known
        after = None if log is None else log.newest
        lasts = topic is self._topics.first
        arguments = read_arguments(self._names.announcements(topic.name), known)
        return self._names.keys(topic.name), [*arguments, "" if after is None else after, int(lasts)]

    def _note_time(self, answers: Sequence[Any]) -> None:
        latest = next((answer for answer in reversed(answers) if isinstance(answer, list)), None)
        if latest is not None:
            self._clock.note(read_time(latest))

    def _take(self, topic: Topic, answer: Any) -> bool:
        """:return: whether all is known that there was."""
        try:
            if isinstance(answer, Exception):
                raise answer
            lookup = read_lookup(answer)
        except (redis.RedisError, OSError, ValueError) as error:
            self._retry_later(topic)
            self._note_failure(topic, error)
            return False
        self._health.channel_worked(READING, topic.name)
        if not topic.catch_up(lookup, self._clock):
            self.require(topic)
            return False
        self._watch_run(topic, lookup)
        self._topics.start_new_listeners(topic)
        return True

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

    def _note_failure(self, topic: Topic, error: Exception) -> None:
        keys = self._names.keys(topic.name)
        if diagnose(error) is KEYS and topic is not self._topics.first:
            self._health.channel_failed(READING, topic.name, keys, error)
        else:  # all others wait for the first one
            self._health.failed(READING, error, keys)

    def _retry_later(self, topic: Topic) -> None:
        if not self._failed:
            self._retry_at = time.monotonic() + RETRY_SECONDS
        self._failed[topic] = None


def _is_full(answer: Any) -> bool:
    """Return whether a script could not write because Redis has no memory left, which old versions word differently."""
    return isinstance(answer, redis.ResponseError) and "command not allowed when used memory" in str(answer)
