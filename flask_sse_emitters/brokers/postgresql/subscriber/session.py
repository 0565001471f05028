"""What the subscriber does on one connection, from its beginning to its end."""

from __future__ import annotations

import json
import logging
import math
import selectors
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg

from ....runtime.scheduler import SCHEDULER
from ....runtime.waiter import WakeupSocket
from ...listening.topics import Topic, Topics
from ...remote.clock import ServerClock
from ...remote.health import Health
from ..client.connection import Connection
from ..client.database import Database
from ..client.errors import was_refused
from ..client.wakeups import ANNOUNCE, OUTBOX, POSITIONS, TEST, Outgoing, messages_of
from ..statements import LISTEN, SWEEP
from .hearing import Hearing
from .lookups import Lookups
from .presence import Presence

log = logging.getLogger("flask_sse_emitters.brokers.postgresql")

#: A part of the work, as logs and ``sse.stats()`` name it.
SWEEPING = "publishing what was committed"

#: Seconds in which all logs are gone through, to drop the events that are too old.
DROP_SECONDS = 60.0

#: Seconds until a channel of the outbox is gone through again that somebody published to just then.
AGAIN_SECONDS = 0.05


class Session:
    """One connection. Only the subscriber's thread may call.

    :param wakeup: wakes the session where something is to be done.
    :param is_stopping: whether the session is to end.
    """

    def __init__(
        self,
        database: Database,
        connection: Connection,
        wakeup: WakeupSocket,
        topics: Topics,
        presence: Presence,
        hearing: Hearing,
        outgoing: Outgoing,
        health: Health,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._database = database
        self._connection = connection
        self._wakeup = wakeup
        self._topics = topics
        self._presence = presence
        self._hearing = hearing
        self._outgoing = outgoing
        self._health = health
        self._is_stopping = is_stopping
        self._lookups = Lookups(self._run, topics, ServerClock(SCHEDULER.clock), health)
        self._heard: list[str] = []  # messages that are not read yet
        self._sweep_at = math.inf  # but for each look
        self._idle_at = 0.0  # when a topic is to be dropped
        self._undropped: list[Topic] = []
        self._dropped_at = time.monotonic()
        self.is_settled = False  #: it has been through all lookups once

    def run(self) -> None:
        """Listen until the session is to end.

        :raises psycopg.Error: where the connection, or another one that it needs, fails.
        :raises TimeoutError: where the database does not answer.
        """
        self._connection.add_notify_handler(lambda heard: self._heard.append(heard.payload))
        self._run(LISTEN)
        self._hearing.begin()
        self._presence.reset()
        self._topics.take_changed()
        for topic in self._topics.all():
            self._lookups.request(topic)
        self._outgoing.is_open = True
        try:
            self._listen()
        finally:
            self._outgoing.is_open = False
        self._outgoing.send(self._run)

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            while not self._is_stopping():
                ready = {key.fileobj for key, _ in selector.select(self._seconds_to_wait())}
                if self._is_stopping():
                    return
                if self._wakeup in ready:
                    self._wakeup.drain()
                if self._connection in ready:
                    self._receive()
                self._work(time.monotonic())

    def _work(self, now: float) -> None:
        heard, self._heard = self._heard, []
        for message in heard:
            self._read(message)
        self._tell(now)
        self._idle_at = self._topics.drop_idle()
        self._look_at_changed()
        self._lookups.run()
        self._presence.report(self._run, now)
        self._look_for_more(now)
        self._drop_old_events(now)
        if not self._lookups.is_pending:
            self.is_settled = True
            self._health.connected()

    def _seconds_to_wait(self) -> float:
        if self._heard:
            return 0.0
        parts = (self._lookups, self._presence, self._hearing, self._outgoing)
        due = min(self._idle_at, self._sweep_at, *(part.due for part in parts))
        return max(0.0, due - time.monotonic())

    def _run(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return self._database.run_on(self._connection, statement, parameters)

    def _tell(self, now: float) -> None:
        """Tell what this process has published, and read what of that has readers here without waiting to hear it."""
        if now >= self._outgoing.due:
            for channel, position in self._outgoing.send(self._run).items():
                self._lookups.note_position(channel, position)

    def _receive(self) -> None:
        pgconn = self._connection.pgconn
        pgconn.consume_input()
        while (heard := pgconn.notifies()) is not None:
            self._heard.append(heard.extra.decode(errors="replace"))

    def _read(self, message: str) -> None:
        kind, text = message[:1], message[1:]
        if kind == TEST:
            self._hearing.heard(text)
        elif kind == OUTBOX:
            self._sweep_at = 0.0
        elif kind == POSITIONS:
            with suppress(ValueError, TypeError):  # another program may send anything
                for channel, position in json.loads(text):
                    self._lookups.note_position(channel, position)

    def _look_at_changed(self) -> None:
        """Look up the channels that have a new listener, or one that waits for what there is now."""
        for channel in self._topics.take_changed():
            if (topic := self._topics.get(channel)) is not None:
                self._lookups.request(topic)

    def _look_for_more(self, now: float) -> None:
        """Look for what nobody told, or nobody heard here; publish what waits in the outbox."""
        self._hearing.test(now)
        if self._hearing.is_time_to_look(now):
            self._sweep_at = min(self._sweep_at, now)
            self._hearing.has_looked(self._lookups.compare())
        if now >= self._sweep_at:
            self._sweep_at = self._sweep(now)

    def _sweep(self, now: float) -> float:
        """Publish what waits in the outbox. Return when to do that again, but for the next look."""
        try:
            rows = self._run(SWEEP)
        except psycopg.Error as error:
            if not was_refused(error):
                raise
            self._health.failed(SWEEPING, error)
            return math.inf
        self._health.worked(SWEEPING)
        published = {channel: event_id for channel, event_id in rows if event_id is not None}
        if published:
            self._run(ANNOUNCE, [messages_of(published.items())])
        return now + AGAIN_SECONDS if len(published) < len(rows) else math.inf

    def _drop_old_events(self, now: float) -> None:
        """Drop old events of some of the logs: all of them in DROP_SECONDS."""
        topics = len(self._topics)
        some = int((now - self._dropped_at) / DROP_SECONDS * topics)
        if some or not topics:
            self._dropped_at = now
        if not some:
            return
        if not self._undropped:
            self._undropped = self._topics.all()
        for topic in self._undropped[-some:]:
            if topic.log is not None:
                with topic.log.guard:
                    topic.log.forget_old()
        del self._undropped[-some:]
