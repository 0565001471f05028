"""``memory://``: the broker of a single process."""

from __future__ import annotations

from collections.abc import Callable

from ..config.settings import DEFAULTS
from ..runtime.fork import reset_after_fork
from ..runtime.locks import native_lock
from ..runtime.scheduler import SCHEDULER, Scheduler
from ..runtime.worker_pool import weakly
from ..wire.frame import Frame
from .base import Broker, Listener, Published, Start
from .event_ids import Position, new_epoch
from .event_log import Bounds, Log

#: Seconds for which a key is remembered.
KEY_SECONDS = 300.0

#: So often, in seconds, what is too old is looked for. (Whoever reads does not get it, even before that.)
SWEEP_SECONDS = 60.0

#: So many channels are looked at in one go.
SWEPT_AT_ONCE = 100

#: So many channels that nobody listens to, and of which nothing is kept any more, are remembered.
IDLE_KEPT = 10_000


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
        published = None
        while published is None:  # again where the channel was being forgotten
            record = self._record(channel)
            published = record.publish(frame, bounds, key)
        self._sweep_later()
        record.tell()
        return published

    def subscribe(self, channel: str, listener: Listener) -> Start:
        start = None
        while start is None:
            start = self._record(channel).add(listener)
        return start

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        record = self._records.get(channel)
        if record is not None and record.remove(listener):
            with self._lock:
                self._forget(channel)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        record = self._records.get(channel)
        if record is None:
            done()
        else:
            record.when_told(done)

    def newest(self, channel: str) -> int:
        return self._record(channel).log.newest

    def close(self) -> None:
        with self._lock:
            self._records.clear()
            self._epoch = new_epoch()  # what is still published gets no id that was given before

    def _reset(self) -> None:
        self._lock = native_lock()
        self._records: dict[str, _Record] = {}
        self._epoch = new_epoch()
        self._forgotten = 0  # no channel that was forgotten had a higher offset
        self._sweeping = False

    def _record(self, channel: str) -> _Record:
        with self._lock:
            record = self._records.get(channel)
            if record is None or record.is_forgotten:
                self._forget(channel)
                # Beyond every offset that it may have had before, so that no id stands for two events.
                log = Log(self._epoch, self._forgotten, self._scheduler.clock)
                record = self._records[channel] = _Record(log, self._scheduler)
            return record

    def _forget(self, channel: str) -> None:
        record = self._records.get(channel)
        if record is not None and record.is_forgotten:
            del self._records[channel]
            self._forgotten = max(self._forgotten, record.log.newest)

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._scheduler.call_at(self._scheduler.clock() + SWEEP_SECONDS, weakly(self._sweep))

    def _sweep(self) -> None:
        with self._lock:
            channels = list(self._records)
        too_many = len(channels) - IDLE_KEPT
        self._sweeping = False

        def sweep_some() -> bool:
            nonlocal too_many
            for channel in channels[-SWEPT_AT_ONCE:]:
                record = self._records.get(channel)
                if record is not None and record.forget_old(too_many > 0):
                    too_many -= 1
                    with self._lock:
                        self._forget(channel)
            del channels[-SWEPT_AT_ONCE:]
            return bool(channels)

        channels.reverse()  # the oldest ones first
        if channels:
            self._scheduler.call_soon(sweep_some)
            self._sweep_later()


class _Record:
    """One channel. The lock of its log guards all of it."""

    __slots__ = (
        "_begin",
        "_bounds",
        "_keys",
        "_listeners",
        "_news",
        "_scheduler",
        "_telling",
        "_when_told",
        "is_forgotten",
        "log",
    )

    def __init__(self, log: Log, scheduler: Scheduler) -> None:
        self.log = log
        self.is_forgotten = False  #: for good: another record takes its place
        self._begin = log.newest
        self._bounds = Bounds(DEFAULTS.history, DEFAULTS.history_seconds)
        self._scheduler = scheduler
        self._listeners: tuple[Listener, ...] = ()
        self._news: list[Frame] = []  # what the listeners have not been told yet
        self._when_told: list[Callable[[], object]] = []  # to be called once they were told
        self._telling = False  # somebody is telling them: whoever else has news leaves it to them
        self._keys: dict[str, tuple[float, str]] = {}  # by age

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
                self._news.append(stamped)
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
            if not self._listeners and self.log.newest == self._begin:
                self.is_forgotten = True
            return self.is_forgotten

    def when_told(self, call: Callable[[], object]) -> None:
        """Call this once the listeners have been told all that is new now: at once, where nothing is."""
        with self.log.guard:
            self._when_told.append(call)
        self.tell()

    def tell(self) -> None:
        """Tell the listeners all that is new, in order, unless somebody else is at it.

        Only once: who published goes on with its own work, and what others have published meanwhile is told in the
        background.
        """
        if self._tell():
            self._scheduler.call_soon(self._tell)

    def _tell(self) -> bool:
        """:return: whether there is more to tell, and nobody at it."""
        with self.log.guard:
            if self._telling or not (self._news or self._when_told):
                return False
            listeners, told, calls = self._listeners, self._news, self._when_told
            self._telling, self._news, self._when_told = True, [], []
        untold, uncalled = told, calls
        try:
            for listener in listeners:
                listener.arrived(told)
            untold, uncalled = [], []
        finally:  # also after an interrupt of this thread: then the next one tells it again
            with self.log.guard:
                self._news = untold + self._news
                self._when_told = uncalled + self._when_told
                self._telling = False
        for call in calls:
            call()
        return bool(self._news or self._when_told)

    def forget_old(self, altogether: bool) -> bool:
        """Let go of what is too old; of the whole channel, where that is wanted and nobody needs it."""
        with self.log.guard:
            self._forget_keys(self._scheduler.clock())
            empty = self.log.forget_old() > self.log.newest
            if altogether and empty and not (self._listeners or self._keys):
                self.is_forgotten = True
            return self.is_forgotten

    def _forget_keys(self, now: float) -> None:
        while self._keys:
            oldest = next(iter(self._keys))
            if self._keys[oldest][0] + KEY_SECONDS > now:
                return
            del self._keys[oldest]
