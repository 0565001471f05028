"""Reading channels: those that are new here, and those that lack events, all in one query."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg

from ....runtime.calls import call_and_log
from ....runtime.gevent_loop import TIME_SLICE_SECONDS
from ...base import Publication
from ...listening.lookup import KnownEvent, Lookup
from ...listening.lookups import BaseLookups, Waiting
from ...listening.thread import yield_on_greenlets
from ...listening.topics import Topic, Topics
from ...remote.clock import ServerClock
from ...remote.health import READING, Health
from ..client.errors import was_refused
from ..client.wakeups import ANNOUNCE, messages_of
from ..statements import (
    CHANGED,
    LOOK_UP,
    PUBLISH,
    Found,
    is_to_be_mended,
    publish_parameters,
    read_lookups,
    read_outcome,
)

#: So many channels are read at once, and so many events: of each at least, at most, and of all where that is between.
MAX_TOPICS, LEAST_EVENTS, MOST_EVENTS, MAX_EVENTS = 200, 20, 500, 4000

#: So many channels are compared at once.
MAX_COMPARED = 5000

#: A channel that is used, and was noted as such before so many milliseconds, is noted again: as ``sse.changed`` has it.
UNUSED_TOUCH_MS, USED_TOUCH_MS = 300_000, 86_400_000


class Lookups(BaseLookups):
    """The lookups of one connection. Only the subscriber's thread may call.

    :param run: runs a statement on that connection.
    """

    def __init__(
        self,
        run: Callable[[str, Sequence[Any]], list[Any]],
        topics: Topics,
        clock: ServerClock,
        health: Health,
    ) -> None:
        self._run = run
        super().__init__(topics, clock, health, MAX_TOPICS)
        self._compared = 0  # up to this one
        self._mended: set[Topic] = set()  # since they were last as they should be

    def note_position(self, channel: str, position: str) -> None:
        """Request the channel where it has come further than this process knows.

        :param position: the id of its newest event; empty where something else is new.
        """
        topic = self._topics.get(channel)
        if topic is None:
            return
        log = topic.log
        if log is None or not position:
            self.request(topic)
            return
        epoch, _, offset = position.partition("-")
        if epoch != log.epoch or int(offset) > log.newest:
            self.request(topic)

    def compare(self) -> bool:
        """Request the channels that are not as this process has them. Return whether there were any."""
        topics = [topic for topic in self._topics.all() if topic.log is not None]
        begin = self._compared if self._compared < len(topics) else 0
        some = topics[begin : begin + MAX_COMPARED]
        self._compared = begin + len(some)
        logs = [topic.log for topic in some if topic.log is not None]
        if not logs:
            return False
        rows = self._run(
            CHANGED,
            [
                [topic.name for topic in some],
                [log.epoch for log in logs],
                [log.newest for log in logs],
                [log.is_complete for log in logs],
                [log.has_run for log in logs],
            ],
        )
        for (name,) in rows:
            if (topic := self._topics.get(name)) is not None:
                self.request(topic)
        return bool(rows)

    def _look_up(self, topics: Sequence[Topic], waiting: Waiting) -> None:
        first = self._topics.first
        if first is not None:  # nothing of others is delivered before all of this one that was published before
            topics = [first, *(topic for topic in topics if topic is not first)]
        waiting.update((topic, self._topics.take_calls(topic)) for topic in topics)
        answers = self._read(topics)
        if first is not None and not self._take_first(first, answers[0]):
            self._retry_later(topics[1:])
            return
        slice_ends = time.monotonic() + TIME_SLICE_SECONDS
        wrong: dict[Topic, KnownEvent] = {}
        for topic, found in zip(topics, answers, strict=True):
            if topic is not first and not self._take(topic, found, wrong):
                continue
            for call in waiting.pop(topic):
                call_and_log(call)
            if time.monotonic() > slice_ends:
                yield_on_greenlets()
                slice_ends = time.monotonic() + TIME_SLICE_SECONDS
        self._mend(wrong)

    def _take_first(self, first: Topic, found: Found) -> bool:
        """Deliver all of the first topic. Return whether that is done: else the others wait."""
        while True:
            wrong: dict[Topic, KnownEvent] = {}
            is_done = self._take(first, found, wrong)
            self._mend(wrong)
            self._pending.pop(first, None)
            if is_done:
                return True
            if first in self._failed:
                return first.log is None  # nothing has begun there, nor can it now
            [found] = self._read([first])

    def _read(self, topics: Sequence[Topic]) -> list[Found]:
        logs = [topic.building or topic.log for topic in topics]
        most = min(max(MAX_EVENTS // len(topics), LEAST_EVENTS), MOST_EVENTS)
        names = [topic.name for topic in topics]
        epochs = ["" if log is None else log.epoch for log in logs]
        offsets = [None if log is None else log.newest for log in logs]
        rows = self._run(LOOK_UP, [names, epochs, offsets, most])
        self._clock.note(rows[0][4])
        return list(read_lookups(rows, len(topics)))

    def _take(self, topic: Topic, found: Found, wrong: dict[Topic, KnownEvent]) -> bool:
        """Take what was found. Return whether all is known that there was.

        :param wrong: gets the topic if it is to be mended, with the event that is known of it.
        """
        lookup = found.lookup
        known = self._topics.known(topic.name)
        if lookup is None or is_to_be_mended(lookup, known):
            wrong[topic] = known
            return False
        if _is_other(topic, lookup, found.after_ms):
            wrong[topic] = topic.known
            return False
        self._mended.discard(topic)
        if not topic.catch_up(lookup, self._clock):
            self.request(topic)
            return False
        if lookup.now_ms - found.touched_ms > (USED_TOUCH_MS if lookup.newest else UNUSED_TOUCH_MS):
            wrong[topic] = known
        self._watch_run(topic, lookup)
        self._topics.start_new_listeners(topic)
        return True

    def _mend(self, topics: Mapping[Topic, KnownEvent]) -> None:
        """Put channels in order that are not as they should be, tell all processes, and look them up again."""
        if not topics:
            return
        known = {topic.name: topics[topic] for topic in sorted(topics, key=lambda topic: topic.name)}
        groups: dict[str, Sequence[Publication]] = dict.fromkeys(known, ())
        try:
            rows = self._run(PUBLISH, publish_parameters(groups, known))
        except psycopg.Error as error:
            if not was_refused(error):
                raise
            self._health.failed(READING, error)
            self._retry_later(topics)
            return
        again = self._mended & topics.keys()  # it was no use: another time, or this would go on for ever
        self._retry_later(again)
        self._mended |= topics.keys()
        for topic in topics.keys() - again:
            self.request(topic)
        self._run(ANNOUNCE, [messages_of(read_outcome(rows, groups).positions.items())])


def _is_other(topic: Topic, lookup: Lookup, after_ms: int | None) -> bool:
    """Return whether the newest event that is known here is not the one that the database has at its offset."""
    log, known = topic.building or topic.log, topic.known
    if log is None or after_ms is None or known.offset != log.newest or known.epoch != lookup.epoch:
        return False
    return known.at_ms != after_ms
