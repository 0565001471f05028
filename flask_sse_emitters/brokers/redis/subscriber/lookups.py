"""Looking channels up in Redis: those that were just subscribed to, and those that may lack events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from ....runtime.calls import call_and_log
from ....runtime.gevent_loop import TIME_SLICE_SECONDS
from ...listening.lookups import BaseLookups, Waiting
from ...listening.topics import Topic, Topics
from ...remote.clock import ServerClock
from ...remote.health import READING, Health
from ..connections.client import Client
from ..errors import KEYS, diagnose
from ..messages import KeyNames, read_arguments, read_lookup, read_time
from ..scripts.channels import LOOK_UP

#: So many channels are looked up in one go.
MAX_LOOKUPS = 20


class Lookups(BaseLookups):
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
        super().__init__(topics, clock, health, MAX_LOOKUPS)
        self._names = names
        self._yield_now = yield_now

    def require(self, topic: Topic) -> None:
        """Look the topic up in the next :meth:`run`, before any more of it is delivered."""
        topic.is_behind = True
        self._pending[topic] = None

    def _look_up(self, topics: Sequence[Topic], waiting: Waiting) -> None:
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
                self._retry_later([first])
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
            self._retry_later([topic])
            self._note_failure(topic, error)
            return False
        self._health.channel_worked(READING, topic.name)
        if not topic.catch_up(lookup, self._clock):
            self.require(topic)
            return False
        self._watch_run(topic, lookup)
        self._topics.start_new_listeners(topic)
        return True

    def _note_failure(self, topic: Topic, error: Exception) -> None:
        keys = self._names.keys(topic.name)
        if diagnose(error) is KEYS and topic is not self._topics.first:
            self._health.channel_failed(READING, topic.name, keys, error)
        else:  # all others wait for the first one
            self._health.failed(READING, error, keys)


def _is_full(answer: Any) -> bool:
    """Return whether a script could not write because Redis has no memory left, which old versions word differently."""
    return isinstance(answer, redis.ResponseError) and "command not allowed when used memory" in str(answer)
