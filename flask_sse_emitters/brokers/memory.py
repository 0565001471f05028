"""``memory://``: the broker of a single process."""

from __future__ import annotations

from collections.abc import Callable

from ..config.settings import DEFAULTS
from ..runtime.calls import weakly
from ..runtime.fork import reset_after_fork
from ..runtime.locks import native_lock
from ..runtime.scheduler import SCHEDULER, Scheduler
from ..wire.frame import Frame
from .base import Broker, Listener, Published, Start
from .event_ids import Position, new_epoch
from .event_log import Bounds, Log

#: Seconds for which a key is remembered.
KEY_SECONDS = 300.0

#: Seconds between two sweeps, which drop the events that are too old. (Readers do not get them, even before that.)
SWEEP_SECONDS = 60.0

#: So many channels are swept in one go.
CHANNELS_PER_SWEEP = 100

#: So many channels are remembered that have no listener and no event left.
MAX_IDLE_CHANNELS = 10_000


class MemoryBroker(Broker):
    """Keeps everything in this process. Its epoch is the process's own, and a forked child begins a new one.

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
        published = None
        while published is None:  # once more where the channel was being forgotten
            record = self._record(channel)
            published = record.publish(frame, bounds, key)
        self._sweep_later()
        record.deliver()
        return published

    def subscribe(self, channel: str, listener: Listener) -> Start:
        """Deliver the channel's events to the listener: see :meth:`.Broker.subscribe`."""
        start = None
        while start is None:
            start = self._record(channel).add(listener)
        return start

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Deliver nothing more to the listener: see :meth:`.Broker.unsubscribe`."""
        record = self._records.get(channel)
        if record is not None and record.remove(listener):
            with self._lock:
                self._forget(channel)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        """Call ``done`` once all is delivered: see :meth:`.Broker.look_again`."""
        record = self._records.get(channel)
        if record is None:
            done()
        else:
            record.when_delivered(done)

    def newest(self, channel: str) -> int:
        """Return the offset of the channel's newest event."""
        return self._record(channel).log.newest

    def close(self) -> None:
        """Forget all channels. An event that is published later gets no id that was given before."""
        with self._lock:
            self._records.clear()
            self._epoch = new_epoch()

    def _reset(self) -> None:
        self._lock = native_lock()
        self._records: dict[str, _Record] = {}
        self._epoch = new_epoch()
        self._max_forgotten = 0  # the highest offset of the channels that were forgotten
        self._is_sweep_due = False

    def _record(self, channel: str) -> _Record:
        with self._lock:
            record = self._records.get(channel)
            if record is None or record.is_forgotten:
                self._forget(channel)
                # Beyond every offset that it may have had before, so that no id stands for two events.
                log = Log(self._epoch, self._max_forgotten, self._scheduler.clock)
                record = self._records[channel] = _Record(log, self._scheduler)
            return record

    def _forget(self, channel: str) -> None:
        record = self._records.get(channel)
        if record is not None and record.is_forgotten:
            del self._records[channel]
            self._max_forgotten = max(self._max_forgotten, record.log.newest)

    def _sweep_later(self) -> None:
        if not self._is_sweep_due:
            self._is_sweep_due = True
            self._scheduler.call_at(self._scheduler.clock() + SWEEP_SECONDS, weakly(self._sweep))

    def _sweep(self) -> None:
        with self._lock:
            channels = list(self._records)
        too_many = len(channels) - MAX_IDLE_CHANNELS
        self._is_sweep_due = False

        def sweep_some() -> bool:
            nonlocal too_many
            for channel in channels[-CHANNELS_PER_SWEEP:]:
                record = self._records.get(channel)
                if record is not None and record.forget_old(altogether=too_many > 0):
                    too_many -= 1
                    with self._lock:
                        self._forget(channel)
            del channels[-CHANNELS_PER_SWEEP:]
            return bool(channels)

        channels.reverse()  # the oldest ones first
        if channels:
            self._scheduler.call_soon(sweep_some)
            self._sweep_later()


class _Record:
    """One channel. The lock of its log guards all of it."""

    __slots__ = (
        "_bounds",
        "_calls",
        "_first_offset",
        "_is_delivering",
        "_keys",
        "_listeners",
        "_scheduler",
        "_undelivered",
        "is_forgotten",
        "log",
    )

    def __init__(self, log: Log, scheduler: Scheduler) -> None:
        self.log = log
        self.is_forgotten = False  #: for good: another record takes its place
        self._first_offset = log.newest
        self._bounds = Bounds(DEFAULTS.history, DEFAULTS.history_seconds)
        self._scheduler = scheduler
        self._listeners: tuple[Listener, ...] = ()
        self._undelivered: list[Frame] = []
        self._calls: list[Callable[[], object]] = []  # to make once all of these are delivered
        self._is_delivering = False  # some thread is: others leave their events to it
        self._keys: dict[str, tuple[float, str]] = {}  # with their time and the id of their event, by age

    def publish(self, frame: Frame, bounds: Bounds | None, key: str | None) -> Published | None:
        with self.log.guard:
            if self.is_forgotten:
                return None
            now = self._scheduler.clock()
            self._forget_keys(now)
            if key is not None and key in self._keys:
                return Published(self._keys[key][1], is_new=False)
            self._bounds = self._bounds if bounds is None else bounds
            stamped = self.log.append(frame, self._bounds)
            if self._listeners:
                self._undelivered.append(stamped)
            event_id = str(Position(self.log.epoch, stamped.offset))
            if key is not None:
                self._keys[key] = now, event_id
            return Published(event_id, is_new=True)

    def add(self, listener: Listener) -> Start | None:
        with self.log.guard:
            if self.is_forgotten:
                return None
            self._listeners = (*self._listeners, listener)
            return Start(self.log, self.log.newest)

    def remove(self, listener: Listener) -> bool:
        """:return: whether nothing is left of the channel."""
        with self.log.guard:
            self._listeners = tuple(other for other in self._listeners if other is not listener)
            if not self._listeners and self.log.newest == self._first_offset:
                self.is_forgotten = True
            return self.is_forgotten

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

    def forget_old(self, *, altogether: bool) -> bool:
        """Forget what is too old; with ``altogether`` the whole channel, if it is not in use.

        :return: whether the channel is forgotten.
        """
        with self.log.guard:
            self._forget_keys(self._scheduler.clock())
            is_empty = self.log.forget_old() > self.log.newest
            if altogether and is_empty and not (self._listeners or self._keys):
                self.is_forgotten = True
            return self.is_forgotten

    def _forget_keys(self, now: float) -> None:
        while self._keys:
            oldest = next(iter(self._keys))
            if self._keys[oldest][0] + KEY_SECONDS > now:
                return
            del self._keys[oldest]
