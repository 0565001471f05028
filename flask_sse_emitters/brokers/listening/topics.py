"""Topics: the channels that have a listener in this process, their logs, and the newest events known of others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from ...runtime.calls import call_and_log
from ...runtime.gevent_loop import yield_now
from ...runtime.locks import native_lock
from ...wire.frame import BATCH_BYTES, Frame
from ..base import Listener, Start
from ..event_log import Log
from ..remote.clock import ServerClock
from ..remote.health import READING, Health
from .lookup import UNKNOWN, Announcement, KnownEvent, Lookup, continues, newer

#: Seconds for which a channel is subscribed to after its last client has left. The next client then finds its log here:
#: the server need not send all of it again.
LINGER_SECONDS = 5.0

#: Events that come faster than listeners can take them wait, so many seconds at a time at most.
MAX_PAUSE_SECONDS = 0.05

#: The newest events of so many channels are remembered, those that were noted last.
MAX_KNOWN_EVENTS = 10_000


class Topic:
    """One channel that has a listener here. Only the thread that listens touches it, but for its listeners."""

    __slots__ = (
        "building",
        "is_behind",
        "known",
        "listeners",
        "log",
        "look_at",
        "looked_up_at",
        "name",
        "new_listeners",
        "when_synced",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners: tuple[Listener, ...] = ()  # those that were started
        self.new_listeners: tuple[Listener, ...] = ()  # and those that were not
        self.when_synced: list[Callable[[], object]] = []  # to be called once all that the server has now is known
        self.is_behind = True  # events may be missing: announcements do not count until it was looked up
        self.log: Log | None = None
        self.building: Log | None = None  # takes its place once it is complete
        self.known = UNKNOWN  # its newest event; any thread may read it
        self.looked_up_at = 0.0
        self.look_at = math.inf  # when it must be looked up again

    @property
    def clients(self) -> int:
        """The number of clients here."""
        return sum(listener.clients for listener in (*self.listeners, *self.new_listeners))

    def deliver(self, events: Sequence[Announcement], clock: ServerClock, *, is_sure: bool = False) -> None:
        """Keep the events that come next, and deliver them, as many at a time as clients can be sent in one go.

        :param is_sure: see :class:`.KnownEvent`.
        """
        if self.log is None:
            return
        frames: list[Frame] = []
        room = BATCH_BYTES
        for event in events:
            if frames and room < len(event.frame.payload):
                self._notify(frames)
                yield_now()
                frames, room = [], BATCH_BYTES
            frames.append(self._keep(self.log, event, clock, is_sure))
            room -= len(event.frame.payload)
        if frames:
            self._notify(frames)

    def catch_up(self, lookup: Lookup, clock: ServerClock) -> bool:
        """Take the events of a lookup.

        :return: whether these were all that the server has.
        """
        log = self.building or self.log
        if log is None or not continues(log, lookup):
            last = -math.inf if lookup.events or not lookup.newest_ms else clock.to_local(lookup.newest_ms)
            is_complete = lookup.is_complete and not lookup.events
            log = self.building = Log(
                lookup.epoch, lookup.first_offset - 1, clock.now, last, lookup.former, lookup.first, is_complete
            )
        elif log.epoch != lookup.epoch:
            with log.guard:
                log.go_on_in(lookup.epoch, lookup.former)
        if log is self.log:
            self.deliver(lookup.events, clock, is_sure=True)
        else:
            for event in lookup.events:
                self._keep(log, event, clock, is_sure=True)
        if log.newest < lookup.newest:
            return False
        self._finish(lookup)
        return True

    def start(self, listeners: Iterable[Listener]) -> None:
        """Start these listeners with the log as it is."""
        assert self.log is not None
        for listener in listeners:
            call_and_log(partial(listener.started, Start(self.log, self.log.newest)))

    def _finish(self, lookup: Lookup) -> None:
        self.looked_up_at = time.monotonic()
        self.is_behind = False
        self.known = KnownEvent(lookup.epoch, lookup.newest, lookup.newest_ms, is_sure=True)
        log = self.building or self.log
        if log is not None:
            log.is_complete = lookup.is_complete  # a run ends that before its first event
            log.has_run = lookup.run_until_ms > 0
        if self.building is not None:
            self.log, self.building = self.building, None
            self.start(self.listeners)

    def _keep(self, log: Log, event: Announcement, clock: ServerClock, is_sure: bool) -> Frame:
        at = clock.to_local(event.at_ms)
        with log.guard:
            frame = log.keep(event.frame, event.bounds, at)
        self.known = KnownEvent(log.epoch, frame.offset, event.at_ms, is_sure)
        return frame

    def _notify(self, frames: list[Frame]) -> None:
        seconds = 0.0
        for listener in self.listeners:
            pause = call_and_log(partial(listener.arrived, frames))
            seconds = max(seconds, pause) if isinstance(pause, float) else seconds
        if seconds:  # the server keeps the rest, or cuts this connection: then the channel is looked up
            time.sleep(min(seconds, MAX_PAUSE_SECONDS))


class Topics:
    """All topics of this process. Any thread may call, and none waits."""

    def __init__(self, health: Health) -> None:
        #: What it has missed is delivered before anything of the others.
        self.first: Topic | None = None
        self._health = health
        self._lock = native_lock()
        self._topics: dict[str, Topic] = {}
        self._changed: dict[str, None] = {}  # channels
        self._idle: dict[str, float] = {}  # channels without a listener, and since when
        self._known: dict[str, KnownEvent] = {}  # of channels, by when they were noted

    def get(self, channel: str) -> Topic | None:
        """Return the topic of a channel; None where it has no listener."""
        return self._topics.get(channel)

    def __len__(self) -> int:
        return len(self._topics)

    def all(self) -> list[Topic]:
        """Return a snapshot of the topics."""
        return list(self._topics.values())

    def names(self) -> list[str]:
        """Return a snapshot of their names."""
        return list(self._topics)

    def clients(self, channel: str) -> int:
        """Return the number of clients that the channel has here."""
        topic = self._topics.get(channel)
        return 0 if topic is None else topic.clients

    @property
    def have_changed(self) -> bool:
        """Whether :meth:`take_changed` would return any."""
        return bool(self._changed)

    def add(self, channel: str, listener: Listener, *, is_first: bool) -> bool:
        """Add a listener, which is started once all that the server has is known.

        :return: whether the thread that listens is to be woken. Else it was, and has not taken what has changed yet.
        """
        with self._lock:
            wakes = not self._changed
            topic = self._topics.get(channel)
            if topic is None:
                topic = self._topics[channel] = Topic(channel)
                self.first = topic if is_first else self.first
            topic.new_listeners = (*topic.new_listeners, listener)
            self._idle.pop(channel, None)
            self._changed[channel] = None
        return wakes

    def remove(self, channel: str, listener: Listener) -> bool:
        """Remove a listener. Idempotent.

        :return: False where the channel has none.
        """
        with self._lock:
            topic = self._topics.get(channel)
            if topic is None:
                return False
            topic.new_listeners = tuple(other for other in topic.new_listeners if other is not listener)
            topic.listeners = tuple(other for other in topic.listeners if other is not listener)
            if not (topic.new_listeners or topic.listeners):
                self._idle.setdefault(channel, time.monotonic())
            return True

    def call_when_synced(self, channel: str, call: Callable[[], object]) -> bool:
        """Have this called once all that the server has now is delivered to the channel's listeners.

        :return: False where it has none, and nothing will be called.
        """
        with self._lock:
            topic = self._topics.get(channel)
            if topic is not None:
                topic.when_synced.append(call)
                self._changed[channel] = None
        return topic is not None

    def known(self, channel: str) -> KnownEvent:
        """Return the newest event of the channel that this process has published or received."""
        published, topic = self._known.get(channel, UNKNOWN), self._topics.get(channel)
        return published if topic is None else newer(published, topic.known)

    def note_known(self, channel: str, known: KnownEvent) -> None:
        """Remember an event of the channel, unless a newer one is known."""
        with self._lock:
            self._known[channel] = newer(known, self._known.pop(channel, UNKNOWN))
            if len(self._known) > MAX_KNOWN_EVENTS:
                del self._known[next(iter(self._known))]

    def take_changed(self) -> dict[str, None]:
        """Return the channels that are to be looked at: they have come or gone, or have a new listener or call."""
        with self._lock:
            changed, self._changed = self._changed, {}
        return changed

    def take_calls(self, topic: Topic) -> list[Callable[[], object]]:
        """Return the calls that wait for what the server has now; put them back where it could not be read."""
        with self._lock:
            calls, topic.when_synced = topic.when_synced, []
        return calls

    def put_back_calls(self, waiting: dict[Topic, list[Callable[[], object]]]) -> None:
        """Have these calls wait for the next lookup, before any that have come since."""
        with self._lock:
            for topic, calls in waiting.items():
                topic.when_synced = calls + topic.when_synced

    def start_new_listeners(self, topic: Topic) -> None:
        """Start the listeners that have come since the last time. Only on the thread that listens."""
        if topic.new_listeners:
            with self._lock:
                added, topic.new_listeners = topic.new_listeners, ()
                topic.listeners += added
            topic.start(added)

    def drop_idle(self) -> float:
        """Drop the topics that have had no listener for LINGER_SECONDS, and remember their newest events.

        Only on the thread that listens.

        :return: when the next one is due, by ``time.monotonic``.
        """
        while True:
            with self._lock:
                channel, since = next(iter(self._idle.items()), ("", math.inf))
                if since + LINGER_SECONDS > time.monotonic():
                    return since + LINGER_SECONDS
                del self._idle[channel]
                topic = self._topics.pop(channel)
                self.first = None if topic is self.first else self.first
                self._changed[channel] = None
            self._health.channel_worked(READING, channel)
            self.note_known(channel, topic.known)
            for call in topic.when_synced:
                call_and_log(call)
