"""All open streams of an app: how many there may be, whose they are, how they came and went, and their end when the
worker stops.

A worker that stops, *drains*: new streams end at once; the open ones get what is pending, then a ``retry:`` of their
own, so that their clients do not all come back at once, then a clean end. Those that take nothing are cut after
``SSE_DRAIN_SECONDS``. Afterwards the process may exit.
"""

from __future__ import annotations

import atexit
import logging
import math
import weakref
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from heapq import nlargest
from itertools import islice
from typing import Any

from .. import signals
from ..config.settings import Settings
from ..errors import CloseReason, TooManyClients
from ..runtime.parking import begin_anew_in_child, give_way_in_time, guard, in_hub, pause
from ..runtime.scheduler import SCHEDULER, Scheduler
from ..runtime.socket_monitor import SOCKETS
from ..runtime.worker_pool import call_and_log
from ..wire.event import Event
from .emitter import SseEmitter
from .limits import Quota, network_of, quota_of_process
from .traffic import Traffic

log = logging.getLogger("flask_sse_emitters.streams")

#: So many streams are ended in one go; then others have their turn.
AT_ONCE = 32

#: So many streams are counted before others may run.
COUNTED_AT_ONCE = 100

#: Seconds that the last callbacks have when all streams are over.
FOR_CALLBACKS = 1.0

#: That streams are refused is said once in so many seconds.
SAID_EVERY = 60.0

#: So many of the slowest clients are shown.
SLOW_SHOWN = 20


class Streams:
    """Every method may be called from any thread.

    :param app: sends the signals; where it is None, nobody does.
    """

    def __init__(self, settings: Settings, scheduler: Scheduler = SCHEDULER, app: Any = None) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._app = app
        #: Is called when the process exits in order, after the last stream. May wait a second.
        self.at_exit: Callable[[], object] = lambda: None
        self._begin_anew()
        _all.add(self)
        begin_anew_in_child(self)

    def _begin_anew(self) -> None:
        self._guard = guard()
        self._open: dict[SseEmitter, tuple[Quota, ...]] = {}  # and what they count for
        self._limit = quota_of_process(self._settings.max_clients)
        self._quotas: dict[str, Quota] = {}  # of those who have any stream, by whose it is
        self._owned: dict[str, dict[SseEmitter, None]] = {}  # by identity
        self._said: dict[str, float] = {}  # when somebody was last refused aloud, by the limit
        self._drained_by: float | None = None
        self.is_ending = False  #: some are still to be told that they end
        self.opened = 0  #: since the beginning, without those refused
        self.refused_by: Counter[str] = Counter()  #: streams, by the name of the limit
        self.denied = 0  #: requests for channels, by a rule or for their origin
        self.closed: Counter[str] = Counter()  #: by the value of their close_reason
        self.traffic = Traffic()
        self._dropped = 0  # events, of streams that are over

    def __len__(self) -> int:
        return len(self._open)

    @property
    def max_clients(self) -> int:
        """So many streams there may be in this process: ``SSE_MAX_CLIENTS``, or fewer with too few files."""
        return self._limit.most

    @property
    def refused(self) -> int:
        """So many streams were sent away, because of any limit."""
        return sum(self.refused_by.copy().values())

    @property
    def is_draining(self) -> bool:
        return self._drained_by is not None

    def enlist(self, emitter: SseEmitter) -> None:
        """Remember whose it is until it has left. It must be new: nobody else knows it."""
        emitter._register = self
        with self._guard:
            self._own(emitter)

    def of(self, identity: str) -> list[SseEmitter]:
        """The streams of this reader."""
        with self._guard:
            return list(self._owned.get(identity, ()))

    def admit(self, emitter: SseEmitter, address: str | None = None) -> int:
        """Count it in until it has left; end it at once where the worker stops, or there are too many.

        What has ended already is written all the same.

        :param address: of the client.
        :return: the client's ``retry:``.
        """
        drain_at_exit()
        limits = self._limits_of(emitter, address)
        with self._guard:
            own = [self._quotas.get(limit[-1]) or Quota(*limit) for limit in limits]
            quotas = (self._limit, *emitter._quotas, *own)
            full = next((quota for quota in quotas if quota.count >= quota.most), None) if emitter.is_open else None
            refused = full is not None or (self.is_draining and emitter.is_open)
            if not refused:
                self._open[emitter] = quotas
                self._own(emitter)  # again: it may have ended, and left, with something to write
                self.opened += 1
                for quota in quotas:
                    quota.count += 1
                self._quotas.update((quota.whose, quota) for quota in own)
        if not refused:
            if not emitter.is_open:
                self._leave_unless_written(emitter)
            if self._app is not None:
                signals.tell(signals.emitter_opened, self._app, emitter=emitter)
            return self._settings.retry
        if full is None or self.is_draining:
            emitter._refuse(CloseReason.SHUTDOWN, None)
        else:
            emitter._refuse(CloseReason.ERROR, TooManyClients(f"{full.limit} streams{full.whose} are open already"))
            self._note_refused(full)
        return self._settings.spread_retry()

    def left(self, emitter: SseEmitter) -> None:
        with self._guard:
            self._disown(emitter)
            quotas = self._open.pop(emitter, None)
            if quotas is None:
                return
            for quota in quotas:
                quota.count -= 1
                if not quota.count:
                    self._quotas.pop(quota.whose, None)
            self._dropped += emitter.dropped
            if emitter.close_reason is not None:
                self.closed[emitter.close_reason.value] += 1
        said = {"emitter": emitter, "reason": emitter.close_reason, "error": emitter.error}
        self._tell_later(signals.emitter_closed, **said)

    def told_of_gap(self, emitter: SseEmitter, requested: str) -> None:
        self.traffic.count_gap()
        self._tell_later(signals.gap_sent, emitter=emitter, requested=requested)

    def _limits_of(self, emitter: SseEmitter, address: str | None) -> list[tuple[str, int, str]]:
        """Those of whoever reads: as :class:`Quota` takes them."""
        settings, limits = self._settings, []
        most = settings.max_clients_per_identity
        if most is not None and emitter._reader is not None:
            called = f"SSE_MAX_CLIENTS_PER_IDENTITY={most}"
            limits += [(called, most, f" of the identity {identity!r}") for identity in emitter._reader.identities]
        most = settings.max_clients_per_address
        if most is not None and address:
            limits.append((f"SSE_MAX_CLIENTS_PER_ADDRESS={most}", most, f" of the address {network_of(address)}"))
        return limits

    def _leave_unless_written(self, emitter: SseEmitter) -> None:
        """Nobody may ever write one that has ended before it began: then nobody says that it is over."""

        def leave() -> None:
            if emitter._outlet is None:
                self.left(emitter)

        self._scheduler.call_at(self._scheduler.clock() + self._settings.attach_seconds, leave)

    def _own(self, emitter: SseEmitter) -> None:
        if emitter._reader is not None:
            for identity in emitter._reader.identities:
                self._owned.setdefault(identity, {})[emitter] = None

    def _disown(self, emitter: SseEmitter) -> None:
        if emitter._reader is not None:
            for identity in emitter._reader.identities:
                owned = self._owned.get(identity)
                if owned is not None:
                    owned.pop(emitter, None)
                    if not owned:
                        del self._owned[identity]

    def _note_refused(self, full: Quota) -> None:
        now = self._scheduler.clock()
        with self._guard:
            self.refused_by[full.name] += 1
            aloud = now >= self._said.get(full.limit, -math.inf) + SAID_EVERY
            if aloud:
                self._said[full.limit] = now
        if aloud:
            log.warning(
                "more streams%s are asked for than %s; they end at once, and clients try again later",
                full.whose,
                full.limit,
            )

    def note_denied(self) -> None:
        with self._guard:
            self.denied += 1

    def _tell_later(self, signal: Any, **said: Any) -> None:
        """In the background, with the app's context pushed: receivers may block."""
        if signal.receivers and self._app is not None:
            self._scheduler.run(partial(self._tell, signal, said))

    def _tell(self, signal: Any, said: dict[str, Any]) -> None:
        with self._settings.context():
            signals.tell(signal, self._app, **said)

    def counts(self) -> dict[str, Any]:
        """Count the streams, by their outlets; what they were given, and what waits for them. O(streams).

        May be called from any thread; a greenlet lets others run meanwhile.
        """
        with self._guard:
            emitters = list(self._open)
            dropped = self._dropped
        handed_off, declined, late = 0, Counter[str](), []
        for number, emitter in enumerate(emitters):
            if not number % COUNTED_AT_ONCE:
                give_way_in_time()
            handed_off += emitter._direct is not None
            outlet = emitter._outlet
            if outlet is not None and outlet.declined:
                declined[outlet.declined] += 1
            # An idle one has nothing pending but what is just being carried to it.
            if not emitter._idle or emitter._backlog.dropped:
                late.append((emitter, emitter.pending))
        return {
            "clients": len(emitters),
            "outlets": {"handed_off": handed_off, "server": len(emitters) - handed_off},
            "declined": dict(declined),
            "deliveries": self.traffic.deliveries,
            "bytes": self.traffic.bytes,
            "replayed": self.traffic.replayed,
            "gaps": self.traffic.gaps,
            "dropped": dropped + sum(emitter.dropped for emitter, _ in late),
            "pending": sum(pending for _, pending in late),
            "slow": [self._shown(*each) for each in nlargest(SLOW_SHOWN, late, key=_lateness) if any(_lateness(each))],
        }

    def _shown(self, emitter: SseEmitter, pending: int) -> dict[str, Any]:
        reader = emitter._reader
        return {
            "channels": sorted({name for place in emitter._memberships if (name := place.list.name) is not None}),
            "identity": None if reader is None else next(iter(reader.identities), None),
            "pending": pending,
            "dropped": emitter.dropped,
            "outlet": "server" if emitter._direct is None else "handed_off",
            "seconds": round(self._scheduler.clock() - emitter._deadlines.born, 1),
        }

    def drain(self, grace: float = 0.0) -> None:
        """Begin to drain; again is nothing. Never waits.

        :param grace: so many seconds streams still get what is published; at most half of the time.
        """
        now = self._scheduler.clock()
        with self._guard:
            if self._drained_by is not None:
                return
            seconds = self._settings.drain_seconds
            self._drained_by = now + seconds
            self.is_ending = True
            some = bool(self._open)
        if some:
            log.info("the worker stops: %d streams end within %g s", len(self._open), seconds)
        self._scheduler.call_at(now + min(grace, seconds / 2), lambda: self._for_each(self._end))
        self._scheduler.call_at(now + seconds, lambda: self._for_each(self._cut))

    def await_drained(self) -> None:
        """Wait until all streams are over, or the time for it is. In gevent's event loop itself, do not wait."""
        by = (self._drained_by or 0.0) + FOR_CALLBACKS  # those that are cut then let go right after
        while self._open and not in_hub() and self._scheduler.clock() < by:
            pause(0.01)

    def _for_each(self, do: Callable[[SseEmitter], object]) -> None:
        with self._guard:
            emitters = iter(list(self._open))

        def some() -> bool:
            batch = list(islice(emitters, AT_ONCE))
            for emitter in batch:
                do(emitter)
            self.is_ending = bool(batch)
            return self.is_ending

        self._scheduler.call_soon(some)

    def _end(self, emitter: SseEmitter) -> None:
        emitter._shut_down(Event(retry=self._settings.spread_retry()).encode())

    def _cut(self, emitter: SseEmitter) -> None:
        within = f"SSE_DRAIN_SECONDS={self._settings.drain_seconds:g}"
        emitter._disconnect(TimeoutError(f"the worker stops, and the client did not take the end within {within}"))


def _lateness(late: tuple[SseEmitter, int]) -> tuple[int, int]:
    emitter, pending = late
    return pending, emitter.dropped


#: Those of every app of the process.
_all: weakref.WeakSet[Streams] = weakref.WeakSet()


def drain_all(grace: float = 0.0) -> None:
    """Begin to drain all apps of this process; again is nothing."""
    for streams in list(_all):
        streams.drain(grace)


@cache
def drain_at_exit() -> None:
    """Have a process that exits drain, though nobody has told it to; also where it knows nothing of some streams."""
    atexit.register(_drain_and_wait)


def _drain_and_wait() -> None:
    drain_all()
    every = list(_all)
    by = max((streams._drained_by or 0.0 for streams in every), default=0.0)
    # Only for those whose sockets are known: a stream that nobody writes would never end.
    _wait(lambda: len(SOCKETS) > 0 or any(streams.is_ending for streams in every), by)
    _wait(lambda: SCHEDULER.is_calling, SCHEDULER.clock() + FOR_CALLBACKS)
    for streams in every:
        call_and_log(streams.at_exit)


def _wait(is_busy: Callable[[], bool], until: float) -> None:
    while is_busy() and SCHEDULER.clock() < until:
        pause(0.01)
