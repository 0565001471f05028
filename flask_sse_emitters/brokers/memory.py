"""``memory://``: the broker of a single process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..config.settings import DEFAULTS
from ..runtime.calls import weakly
from ..runtime.fork import reset_after_fork
from ..runtime.locks import native_lock
from ..runtime.scheduler import SCHEDULER, Scheduler
from ..wire.frame import CHANNEL_END, Frame
from .agenda import NO_GROUP, Agenda
from .base import INTERRUPTED, Broker, ChannelState, Listener, Publication, Published, RunLost, Start, by_channel
from .event_ids import new_epoch
from .event_log import Bounds, Log

#: Seconds for which a key is remembered.
KEY_SECONDS = 300.0

#: Seconds for which a channel is remembered after its last client has left, or it was last asked for, though nothing is
#: kept of it: a client that comes back then has missed nothing. No more than its events would be kept for.
LINGER_SECONDS = 60.0

#: So many of these seconds may be after its events have expired, where it was used before that.
GRACE_SECONDS = 2.0

#: So many channels are looked at in one go.
CHANNELS_PER_SLICE = 100


class MemoryBroker(Broker):
    """Keeps everything in this process. A forked child begins without any channel.

    A channel that nobody listens to is forgotten once nothing is kept of it: see :meth:`_Record.look`.

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
        self._records: dict[str, _Record] = {}
        self._agenda: Agenda[_Record] = Agenda()  # when to look at channels
        self._timer_at = math.inf  # when the next timer calls
        self._due: list[_Record] = []  # to be looked at now

    def _publish(self, channel: str, publications: Sequence[Publication]) -> list[Published | Exception]:
        results = None
        while results is None:
            record = self._record(channel)
            results = record.publish(publications)
        self._go_on(record)
        return results

    def _record(self, channel: str) -> _Record:
        record = self._records.get(channel)
        if record is None or record.is_forgotten:
            new = _Record(channel, self._scheduler)
            with self._lock:
                self._forget(channel)
                record = self._records.setdefault(channel, new)
        return record

    def _forget(self, channel: str) -> None:
        record = self._records.get(channel)
        if record is not None and record.is_forgotten:
            del self._records[channel]

    def _go_on(self, record: _Record) -> None:
        self._look_later(record)
        record.deliver()

    def _look_later(self, record: _Record) -> None:
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


class _Run(NamedTuple):
    name: str
    seconds: float  # that each event lets it have the channel for
    until: float  # it has the channel


class _Record:
    """One channel. The lock of its log guards all of it."""

    __slots__ = (
        "_bounds",
        "_calls",
        "_is_delivering",
        "_keyed_at",
        "_keys",
        "_listeners",
        "_published_at",
        "_run",
        "_scheduler",
        "_undelivered",
        "_used_at",
        "group",
        "is_forgotten",
        "log",
        "may_be_due_sooner",
        "name",
    )

    def __init__(self, name: str, scheduler: Scheduler) -> None:
        self.name = name
        self.log = Log(new_epoch(), 0, scheduler.clock)
        self.is_forgotten = False  #: for good: another record takes its place
        self.group = NO_GROUP  #: in the agenda of the broker
        self.may_be_due_sooner = True  #: than the agenda has it
        self._bounds = Bounds(DEFAULTS.history, DEFAULTS.history_seconds)
        self._scheduler = scheduler
        self._listeners: tuple[Listener, ...] = ()
        self._undelivered: list[Frame] = []
        self._calls: list[Callable[[], object]] = []  # to make once all of these are delivered
        self._is_delivering = False  # some thread is: others leave their events to it
        self._keys: dict[str, tuple[float, str]] = {}  # with their time and the id of their event, by age
        self._keyed_at = -math.inf  # the newest of them
        self._run: _Run | None = None
        self._published_at = -math.inf
        self._used_at = scheduler.clock()  # when its last listener left, or its state was last asked for

    def publish(self, publications: Iterable[Publication]) -> list[Published | Exception] | None:
        with self.log.guard:
            if self.is_forgotten:
                return None
            now = self._scheduler.clock()
            self._forget_keys(now)
            self._end_dead_run(now)
            return [self._publish(publication, now) for publication in publications]

    def _publish(self, publication: Publication, now: float) -> Published | Exception:
        _, frame, bounds, key, run = publication
        if key is not None and key in self._keys:
            return Published(self._keys[key][1], is_new=False)
        if run is not None:
            if self._run is None or self._run.name != run:
                return RunLost(self.name)
            self._run = self._run._replace(until=now + self._run.seconds)
        if frame.is_end and self.log.is_complete:
            return Published(str(self.log.position(self.log.newest)), is_new=False)
        if bounds is not None and bounds != self._bounds:
            self._bounds, self.may_be_due_sooner = bounds, True
        event_id = self._append(frame, now)
        if key is not None:
            self._keys[key] = now, event_id
            self._keyed_at = now
        return Published(event_id, is_new=True)

    def _append(self, frame: Frame, now: float) -> str:
        stamped = self.log.append(frame, self._bounds)
        self._published_at = now
        if stamped.is_end:
            self._run, self.may_be_due_sooner = None, True
        if self._listeners:
            self._undelivered.append(stamped)
        return str(self.log.position(stamped.offset))

    def state(self) -> ChannelState | None:
        with self.log.guard:
            if self.is_forgotten:
                return None
            self._used_at = now = self._scheduler.clock()
            self._end_dead_run(now)
            return ChannelState.of(self.log)

    def start_run(self, name: str, seconds: float) -> bool | None:
        with self.log.guard:
            if self.is_forgotten:
                return None
            self._used_at = now = self._scheduler.clock()
            self._end_dead_run(now)
            if self._run is None:
                self._run, self.may_be_due_sooner = _Run(name, seconds, now + seconds), True
                self.log.begin_anew()
                self.log.has_run = True
            return self._run.name == name

    def renew_run(self, name: str, seconds: float) -> bool:
        with self.log.guard:
            now = self._scheduler.clock()
            self._end_dead_run(now)
            if self._run is None or self._run.name != name:
                return False
            self._run, self.may_be_due_sooner = self._run._replace(until=now + seconds), True
            return True

    def cancel_run(self, bounds: Bounds | None) -> bool:
        with self.log.guard:
            now = self._scheduler.clock()
            self._end_dead_run(now)
            if self._run is None:
                return False
            if bounds is not None:
                self._bounds = bounds
            self._append(CHANNEL_END, now)
            return True

    def _end_dead_run(self, now: float) -> None:
        if self._run is not None and self._run.until <= now:
            self._append(INTERRUPTED, now)
            self._append(CHANNEL_END, now)

    def add(self, listener: Listener) -> Start | None:
        with self.log.guard:
            if self.is_forgotten:
                return None
            self._end_dead_run(self._scheduler.clock())
            self._listeners = (*self._listeners, listener)
            return Start(self.log, self.log.newest)

    def remove(self, listener: Listener) -> None:
        with self.log.guard:
            self._listeners = tuple(other for other in self._listeners if other is not listener)
            self._used_at, self.may_be_due_sooner = self._scheduler.clock(), True

    def when_delivered(self, call: Callable[[], object]) -> None:
        """Call this once the events published so far are delivered: at once, where they are."""
        with self.log.guard:
            self._calls.append(call)
        self.deliver()

    def deliver(self) -> None:
        """Deliver the new events to the listeners, in order, unless another thread is doing so.

        One pass only: then the publisher goes on with its own work, and the events that others have published
        meanwhile are delivered in the background.
        """
        if self._deliver():
            self._scheduler.call_soon(self._deliver)

    def _deliver(self) -> bool:
        """:return: whether there is more to deliver, and no thread doing so."""
        with self.log.guard:
            if self._is_delivering or not (self._undelivered or self._calls):
                return False
            listeners, frames, calls = self._listeners, self._undelivered, self._calls
            self._is_delivering, self._undelivered, self._calls = True, [], []
        undelivered, uncalled = frames, calls
        try:
            for listener in listeners:
                listener.arrived(frames)
            undelivered, uncalled = [], []
        finally:  # also after an interrupt of this thread: then the next one delivers them again
            with self.log.guard:
                self._undelivered = undelivered + self._undelivered
                self._calls = uncalled + self._calls
                self._is_delivering = False
        for call in calls:
            call()
        return bool(self._undelivered or self._calls)

    @property
    def due(self) -> float:
        """When to look at it again: when its run is dead, or what it keeps is too old, or nobody comes back to it."""
        run = self._run
        if run is not None:
            return run.until
        events, seconds = self._bounds
        seconds = seconds or (math.inf if events else DEFAULTS.history_seconds)
        expiry = self._published_at + seconds
        lingers = self._used_at + min(seconds, LINGER_SECONDS)
        if self._used_at < expiry:
            lingers = min(lingers, expiry + GRACE_SECONDS)
        return max(expiry, lingers, self._keyed_at + KEY_SECONDS)

    def look(self) -> bool:
        """Forget what is too old, and the channel itself when it is due and has no listener; end a dead run.

        :return: whether it is to be looked at again. Else it is forgotten, or comes up again when something happens.
        """
        with self.log.guard:
            self.may_be_due_sooner = True  # it is not in the agenda
            now = self._scheduler.clock()
            self._forget_keys(now)
            self._end_dead_run(now)
            self.log.forget_old()
            is_over = self.due <= now
            if is_over and not self._listeners:
                self.is_forgotten = True
            return not (is_over or self.is_forgotten)

    def _forget_keys(self, now: float) -> None:
        while self._keys:
            oldest = next(iter(self._keys))
            if self._keys[oldest][0] + KEY_SECONDS > now:
                return
            del self._keys[oldest]
