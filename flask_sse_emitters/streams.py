"""All open streams of an app: how many there may be, how they came and went, and their end when the worker stops.

A worker that stops, *drains*: new streams end at once; the open ones get what is pending, then a ``retry:`` of their
own, so that their clients do not all come back at once, then a clean end. Those that take nothing are cut after
``SSE_DRAIN_SECONDS``. Afterwards the process may exit.
"""

from __future__ import annotations

import atexit
import logging
import random
import weakref
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import islice
from typing import Any

from .callbacks import CloseReason
from .emitter import SseEmitter
from .errors import TooManyClients
from .event import Event
from .parking import guard, pause
from .scheduler import SCHEDULER, Scheduler
from .settings import Settings
from .sockets import SOCKETS

log = logging.getLogger(__name__)

#: So many streams are ended in one go; then others have their turn.
AT_ONCE = 32

#: Seconds that the last callbacks have beyond ``SSE_DRAIN_SECONDS``.
FOR_CALLBACKS = 1.0

#: Where there was no room, there is none to speak of before a tenth has left.
ROOM_AGAIN = 0.9


class Streams:
    """Every method may be called from any thread."""

    def __init__(self, settings: Settings, scheduler: Scheduler = SCHEDULER) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._guard = guard()
        self._open: dict[SseEmitter, None] = {}
        self._is_full = False  # somebody was refused, and it was said
        self._drained_by: float | None = None
        self.opened = 0  #: since the beginning, without those refused
        self.refused = 0
        self.closed: Counter[str] = Counter()  #: by the value of their close_reason
        _all.add(self)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_draining(self) -> bool:
        return self._drained_by is not None

    def admit(self, emitter: SseEmitter) -> int:
        """Count it in until it has left; end it at once where the worker stops, or there are too many.

        :return: the client's ``retry:``.
        """
        drain_at_exit()
        settings = self._settings
        with self._guard:
            draining = self.is_draining
            full = len(self._open) >= settings.max_clients and emitter.is_open
            if not (draining or full or isinstance(emitter.error, TooManyClients)):
                self._open[emitter] = None
                self.opened += 1
        if draining:
            emitter._refuse(CloseReason.SHUTDOWN, None)
        elif full:
            self.refuse(emitter, f"SSE_MAX_CLIENTS={settings.max_clients}")
        refused = emitter.close_reason is CloseReason.SHUTDOWN or isinstance(emitter.error, TooManyClients)
        return self.spread_retry() if refused else settings.retry

    def refuse(self, emitter: SseEmitter, limit: str) -> None:
        """End it before it begins, because there are as many already as this limit allows."""
        emitter._refuse(CloseReason.ERROR, TooManyClients(f"{limit} streams are open already"))
        with self._guard:
            self.refused += 1
            news, self._is_full = not self._is_full, True
        if news:
            log.warning("more streams are asked for than %s; they end at once, and clients try again later", limit)

    def left(self, emitter: SseEmitter) -> None:
        with self._guard:
            if emitter not in self._open:
                return
            del self._open[emitter]
            if emitter.close_reason is not None:
                self.closed[emitter.close_reason.value] += 1
            if len(self._open) < self._settings.max_clients * ROOM_AGAIN:
                self._is_full = False

    def spread_retry(self) -> int:
        """Milliseconds until a client reconnects, drawn so that those who were sent away do not all come at once."""
        retry = self._settings.retry
        return random.randint(retry // 2, retry * 2)

    def counts(self) -> dict[str, Any]:
        """How many there are, by their outlets."""
        with self._guard:
            emitters = list(self._open)
        outlets = [emitter._outlet for emitter in emitters]
        declined = Counter(outlet.declined for outlet in outlets if outlet is not None and outlet.declined)
        handed_off = sum(emitter._direct is not None for emitter in emitters)
        return {
            "clients": len(emitters),
            "outlets": {"handed_off": handed_off, "server": len(emitters) - handed_off},
            "declined": dict(declined),
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
            some = bool(self._open)
        if some:
            log.info("the worker stops: %d streams end within %g s", len(self._open), seconds)
        self._scheduler.call_at(now + min(grace, seconds / 2), lambda: self._for_each(self._end))
        self._scheduler.call_at(now + seconds, lambda: self._for_each(self._cut))

    def await_drained(self) -> None:
        """Wait until all streams are over, or the time for it is."""
        deadline = (self._drained_by or 0.0) + FOR_CALLBACKS
        while (self._open or self._scheduler.is_calling) and self._scheduler.clock() < deadline:
            pause(0.01)

    def _for_each(self, do: Callable[[SseEmitter], object]) -> None:
        with self._guard:
            emitters = iter(list(self._open))

        def some() -> bool:
            batch = list(islice(emitters, AT_ONCE))
            for emitter in batch:
                do(emitter)
            return bool(batch)

        self._scheduler.call_soon(some)

    def _end(self, emitter: SseEmitter) -> None:
        emitter._shut_down(Event(retry=self.spread_retry()).encode())

    def _cut(self, emitter: SseEmitter) -> None:
        within = f"SSE_DRAIN_SECONDS={self._settings.drain_seconds:g}"
        emitter._disconnect(TimeoutError(f"the worker stops, and the client did not take the end within {within}"))


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
    by = max((streams._drained_by or 0.0 for streams in list(_all)), default=0.0) + FOR_CALLBACKS
    # Only for those whose sockets are known: a stream that nobody writes would never end.
    while (len(SOCKETS) or SCHEDULER.is_calling) and SCHEDULER.clock() < by:
        pause(0.01)
