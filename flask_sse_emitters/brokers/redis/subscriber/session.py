"""What the subscriber does on one connection, from its beginning to its end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from ....runtime.gevent_loop import TIME_SLICE_SECONDS
from ....runtime.scheduler import SCHEDULER
from ....runtime.waiter import WakeupSocket, make_selector
from ...listening.lookup import Announcement
from ...listening.thread import yield_on_greenlets
from ...listening.topics import Topic, Topics
from ...remote.clock import ServerClock
from ...remote.health import Health
from ..connections.client import Client
from ..messages import KeyNames, read_announcement
from .catch_up import Order, order_of
from .connection import SUBSCRIBED, PubSubConnection
from .liveness import Liveness, Phase
from .lookups import Lookups
from .presence import Presence, Reported

log = logging.getLogger("flask_sse_emitters.brokers.redis_ear")

#: After so many time slices of receiving there is something else to do.
MAX_SLICES = 8

#: Seconds between two looks at what has changed. Channels that come meanwhile are subscribed to and looked up together.
CHANGES_EVERY = 0.005

#: Seconds in which all logs are gone through, to drop the events that are too old.
SWEEP_SECONDS = 60.0

#: Seconds between two lookups of a channel that has had no event: Redis forgets it after :data:`.UNUSED_MS`.
UNUSED_LOOKUP_SECONDS = 300.0


class Session:
    """One connection. Only the subscriber's thread may call.

    :param connection: from :meth:`.Client.listening`, of this client.
    :param wakeup: wakes the session where something is to be done.
    :param lookup_seconds: a channel is looked up so often, though nothing shows that it should be.
    :param is_stopping: whether the session is to end.
    """

    def __init__(
        self,
        client: Client,
        connection: Any,
        wakeup: WakeupSocket,
        topics: Topics,
        presence: Presence,
        names: KeyNames,
        health: Health,
        lookup_seconds: float,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._client = client
        self._raw_connection = connection
        self._wakeup = wakeup
        self._topics = topics
        self._presence = presence
        self._health = health
        self._lookup_seconds = lookup_seconds
        self._is_stopping = is_stopping
        self._clock = ServerClock(SCHEDULER.clock)
        self._lookups = Lookups(client, topics, self._clock, names, health, yield_on_greenlets)
        self._connection = PubSubConnection(connection, names)
        self._liveness = Liveness(time.monotonic())
        self._has_messages = False  # that are not received yet
        self._work_at = 0.0  # when there is something to do, but for receiving
        self._change_at = 0.0  # when to look next at the topics that have changed
        self._warned: set[str] = set()  # of what others announce in these channels
        self._unswept: list[Topic] = []
        self._swept_at = time.monotonic()

    @property
    def is_settled(self) -> bool:
        """Whether it has been through all subscriptions and lookups once."""
        return self._liveness.phase is Phase.SETTLED

    def run(self) -> None:
        """Listen until the session is to end, or sentinels have named another master.

        :raises redis.RedisError: where the connection, or another one that it needs, fails.
        :raises TimeoutError: where Redis no longer answers.
        """
        self._presence.reset()
        self._topics.take_changed()
        self._subscribe(self._topics.names())
        with closing(make_selector()) as selector:
            selector.register(self._connection.fileno(), self._on_readable)
            selector.register(self._wakeup.fileno(), self._on_woken)
            while not self._is_stopping() and self._client.is_current(self._raw_connection):
                ready = selector.select(0.0 if self._has_messages else max(0.0, self._work_at - time.monotonic()))
                if self._is_stopping():
                    return
                for call in ready:
                    call()
                if self._has_messages:
                    self._receive()
                if (now := time.monotonic()) >= self._work_at:
                    self._work(now)

    def _on_readable(self) -> None:
        self._has_messages = True

    def _on_woken(self) -> None:
        self._wakeup.drain()
        self._work_at = 0.0

    def _work(self, now: float) -> None:
        """Do all that is due, but for receiving: events that just come bring none of it."""
        if self._liveness.check(now):
            self._connection.ping()
            self._liveness.pinged(now)
        drop_at = self._topics.drop_idle()
        if now >= self._change_at and self._topics.have_changed:
            self._change_at = now + CHANGES_EVERY
            self._subscribe(self._topics.take_changed())
        self._lookups.run()
        self._presence.report(self._client, now)
        self._sweep(now)
        change_at = self._change_at if self._topics.have_changed else math.inf
        self._work_at = min(self._liveness.due, self._lookups.due, self._presence.due, drop_at, change_at)

    def _note_received(self, now: float) -> None:
        self._liveness.received(now)
        if self.is_settled:
            self._health.received()
            return
        self._work_at = 0.0
        if self._presence.reported is not Reported.NOTHING and not self._lookups.is_pending:
            self._liveness.phase = Phase.SETTLED
            self._health.connected()

    def _subscribe(self, channels: Iterable[str]) -> None:
        """Subscribe to those of these channels that have listeners, and to no others; start new listeners."""
        begin, end = [], []
        for channel in channels:
            topic, is_subscribed = self._topics.get(channel), channel in self._connection.subscribed
            if topic is None:
                end += [channel] if is_subscribed else []
            elif not is_subscribed:
                topic.is_behind = True  # it is looked up once Redis has confirmed
                begin.append(channel)
            elif topic.when_synced or topic.log is None or not topic.listeners:
                self._lookups.request(topic)  # without a listener until now, it may lack something
            else:
                self._topics.start_new_listeners(topic)
        if end:
            self._connection.unsubscribe(end)
        if begin:
            self._connection.subscribe(begin)

    def _receive(self) -> None:
        """Receive the messages that have come, for some time slices at most."""
        topic: Topic | None = None
        events: list[Announcement] = []  # of this topic: deliveries keep the order in which all was published
        began = time.monotonic()
        has_received, slices, slice_ends = False, 0, began + TIME_SLICE_SECONDS
        self._has_messages = False
        for kind, channel, data in self._connection.messages():
            has_received = True
            sender = self._topics.get(channel)
            if sender is not topic:
                self._deliver(topic, events)
                topic, events = sender, []
            if topic is not None and kind == SUBSCRIBED:
                self._lookups.request(topic)
            elif topic is not None and (event := self._next_event(topic, data, events)) is not None:
                events.append(event)
            if time.monotonic() > slice_ends:
                self._deliver(topic, events)
                events, slices = [], slices + 1
                if slices == MAX_SLICES:
                    self._has_messages = True
                    break
                yield_on_greenlets()
                slice_ends = time.monotonic() + TIME_SLICE_SECONDS
        self._deliver(topic, events)
        if has_received:
            self._note_received(began)
        if self._lookups.is_pending:
            self._work_at = 0.0

    def _deliver(self, topic: Topic | None, events: list[Announcement]) -> None:
        if topic is not None and events:
            topic.deliver(events, self._clock)

    def _next_event(self, topic: Topic, data: bytes, received: list[Announcement]) -> Announcement | None:
        """Return the announced event if it is the next one; have the topic looked up where that is unclear.

        :param received: the events that come before, and are not delivered yet.
        """
        first = self._topics.first
        if first is not None and first.is_behind and topic is not first:
            self._lookups.require(topic)
            return None
        if topic.is_behind or topic.log is None or (event := self._parse(topic, data)) is None:
            return None
        newest, newest_ms = (
            (received[-1].offset, received[-1].at_ms) if received else (topic.log.newest, topic.known.at_ms)
        )
        order = order_of(event, topic.log.epoch, newest, newest_ms)
        if order is Order.NEXT:
            self._clock.doubt_if_late(event.at_ms)
            return event
        if order is Order.UNCLEAR:
            self._lookups.require(topic)
        return None

    def _parse(self, topic: Topic, data: bytes) -> Announcement | None:
        try:
            return read_announcement(data)
        except ValueError:
            if topic.name not in self._warned:
                self._warned.add(topic.name)
                log.warning("this package did not publish what is announced in channel %r: %r", topic.name, data[:100])
            return None

    def _sweep(self, now: float) -> None:
        """Drop old events of some of the logs, and request lookups that are due: all of them in SWEEP_SECONDS."""
        topics = len(self._topics)
        some = int((now - self._swept_at) / min(SWEEP_SECONDS, self._lookup_seconds) * topics)
        if some or not topics:
            self._swept_at = now
        if not some:
            return
        if not self._unswept:
            self._unswept = self._topics.all()
        for topic in self._unswept[-some:]:
            if topic.log is not None:
                with topic.log.guard:
                    topic.log.forget_old()
            seconds = self._lookup_seconds if topic.known.offset else min(self._lookup_seconds, UNUSED_LOOKUP_SECONDS)
            if now - topic.looked_up_at > seconds and not topic.is_behind:
                self._lookups.request(topic)
        del self._unswept[-some:]
