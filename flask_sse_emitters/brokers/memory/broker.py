"""``memory://``: the broker of a single process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...runtime.calls import weakly
from ...runtime.fork import reset_after_fork
from ...runtime.locks import native_lock
from ...runtime.scheduler import SCHEDULER, Scheduler
from ...wire.frame import Frame
from ..base import Broker, ChannelState, Listener, Publication, Published, Start, by_channel
from ..event_log import Bounds
from .agenda import Agenda
from .record import Record

#: So many channels are looked at in one go.
CHANNELS_PER_SLICE = 100


class MemoryBroker(Broker):
    """Keeps everything in this process. A forked child begins without any channel.

    A channel that nobody listens to is forgotten once nothing is kept of it: see :meth:`.Record.look`.

    :param url: ``memory://``.
    :param scheduler: keeps the time, for the age of events and keys.
    """

    is_shared = False

    def __init__(self, url: str = "memory://", *, scheduler: Scheduler = SCHEDULER, **_options: object) -> None:
        if url.rstrip("/") != "memory:":
            raise ValueError(f"memory:// takes nothing more, as in {url!r}")
        self._scheduler = scheduler
        self._reset()
        reset_after_fork(self._reset)

    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        """Publish an event: see :meth:`.Broker.publish`."""
        [published] = self.publish_many([Publication(channel, frame, bounds, key)])
        assert isinstance(published, Published), "only a run can be refused"
        return published

    def publish_many(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish several events: see :meth:`.Broker.publish_many`."""
        if len(publications) == 1:
            return self._publish(publications[0].channel, publications)
        results: dict[int, Published | Exception] = {}
        for channel, indexes in by_channel(publications).items():
            found = self._publish(channel, [publications[index] for index in indexes])
            results.update(zip(indexes, found, strict=True))
        return [results[index] for index in range(len(publications))]

    def state(self, channel: str) -> ChannelState:
        """Return the state of a channel: see :meth:`.Broker.state`."""
        state = None
        while state is None:  # once more where the channel was being forgotten
            record = self._record(channel)
            state = record.state()
        self._go_on(record)
        return state

    def start_run(self, channel: str, run: str, seconds: float) -> bool:
        """Give the channel to a run: see :meth:`.Broker.start_run`."""
        has_started = None
        while has_started is None:
            record = self._record(channel)
            has_started = record.start_run(run, seconds)
        self._go_on(record)
        return has_started

    def renew_run(self, channel: str, run: str, seconds: float) -> bool:
        """Let the run have the channel for longer: see :meth:`.Broker.renew_run`."""
        record = self._records.get(channel)
        if record is None:
            return False
        has_channel = record.renew_run(run, seconds)
        self._go_on(record)
        return has_channel

    def cancel_run(self, channel: str, bounds: Bounds | None) -> bool:
        """Take the channel from its run, and end it: see :meth:`.Broker.cancel_run`."""
        record = self._records.get(channel)
        if record is None:
            return False
        was_running = record.cancel_run(bounds)
        self._go_on(record)
        return was_running

    def subscribe(self, channel: str, listener: Listener) -> Start:
        """Deliver the channel's events to the listener: see :meth:`.Broker.subscribe`."""
        start = None
        while start is None:
            record = self._record(channel)
            start = record.add(listener)
        self._go_on(record)
        return start

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Deliver nothing more to the listener: see :meth:`.Broker.unsubscribe`."""
        record = self._records.get(channel)
        if record is not None:
            record.remove(listener)
            self._look_later(record)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        """Call ``done`` once all is delivered: see :meth:`.Broker.look_again`."""
        record = self._records.get(channel)
        if record is None:
            done()
        else:
            record.when_delivered(done)

    def newest(self, channel: str) -> int:
        """Return the offset of the channel's newest event."""
        record = self._record(channel)
        self._look_later(record)
        return record.log.newest

    def close(self) -> None:
        """Forget all channels. An event that is published later gets no id that was given before."""
        with self._lock:
            self._records.clear()

    def _reset(self) -> None:
        self._lock = native_lock()
        self._records: dict[str, Record] = {}
        self._agenda: Agenda[Record] = Agenda()  # when to look at channels
        self._timer_at = math.inf  # when the next timer calls
        self._due: list[Record] = []  # to be looked at now

    def _publish(self, channel: str, publications: Sequence[Publication]) -> list[Published | Exception]:
        results = None
        while results is None:
            record = self._record(channel)
            results = record.publish(publications)
        self._go_on(record)
        return results

    def _record(self, channel: str) -> Record:
        record = self._records.get(channel)
        if record is None or record.is_forgotten:
            new = Record(channel, self._scheduler)
            with self._lock:
                self._forget(channel)
                record = self._records.setdefault(channel, new)
        return record

    def _forget(self, channel: str) -> None:
        record = self._records.get(channel)
        if record is not None and record.is_forgotten:
            del self._records[channel]

    def _go_on(self, record: Record) -> None:
        self._look_later(record)
        record.deliver()

    def _look_later(self, record: Record) -> None:
        """Look at a channel when the next of what it keeps is too old."""
        if record.may_be_due_sooner:
            record.may_be_due_sooner = False  # first: what happens from here on sets it again
            with self._lock:
                self._agenda.add(record, record.due)
                is_first = self._agenda.due < self._timer_at
            if is_first:
                self._set_timer()

    def _set_timer(self) -> None:
        with self._lock:
            when, before = self._agenda.due, self._timer_at
            self._timer_at = min(when, before)
        if when < before:
            self._scheduler.call_at(when, weakly(self._look))

    def _look(self) -> None:
        now = self._scheduler.clock()
        with self._lock:
            self._due += self._agenda.take_due(now)
            self._timer_at = math.inf if self._timer_at <= now else self._timer_at  # it may be a later one that calls
        self._set_timer()
        self._scheduler.call_soon(self._look_at_some)

    def _look_at_some(self) -> bool:
        for _ in range(CHANNELS_PER_SLICE):
            with self._lock:
                if not self._due:
                    return False
                record = self._due.pop()
            if record.look():
                self._go_on(record)
            elif record.is_forgotten:
                with self._lock:
                    self._forget(record.name)
        return True
