"""What one stream waits for: the end of its lifetime, a view that returns it, its next heartbeat, and a slow write."""

from __future__ import annotations

import math
from typing import Literal, Protocol, TypeAlias

from ...config.settings import CHANCE, Settings
from ...runtime.locks import Lock
from ...runtime.scheduler import Scheduler
from ...runtime.timers import Timer

Due: TypeAlias = Literal["timeout", "attach", "write", "heartbeat"]


#: The times of heartbeats are rounded down to such a part of their interval, so that many fall together.
HEARTBEAT_STEPS = 64

#: The first heartbeat is the one chosen as the stream was made, unless that comes before this part of the interval.
EARLIEST_FIRST_BEAT = 0.8


class Timed(Protocol):
    """A stream, as its timer sees it."""

    lock: Lock
    scheduler: Scheduler

    def next_deadline(self) -> float | None:
        """Return when the next deadline may be due; None where nothing is waited for. Under the lock."""

    def on_timer(self) -> None:
        """Do what is due."""


class Deadlines:
    """Times of a monotonic clock, in seconds, and the one timer for all of them.

    Not thread-safe, but for :meth:`set_timer`: the stream's lock guards it.

    An event moves none of them: it only sets :attr:`written`. A heartbeat whose time has come is put off then, if
    something was written since it was set.

    A client makes progress when the next bytes are taken for it, and before that, where the system's buffer is large,
    when the number of unacknowledged bytes changes. That number is read from time to time while the writer writes. A
    client for which it stays the same for the whole of ``SSE_WRITE_SECONDS`` is stuck.

    A client that vanishes in silence while it gets little fills no buffer, so its writer is never found writing. It is
    found by two looks, ``SSE_WRITE_SECONDS`` apart: at both something is unacknowledged, and no byte was acknowledged
    in between.
    """

    __slots__ = (
        "_acknowledged",
        "_beat",
        "_look",
        "_progress",
        "_quiet_since",
        "_streaming",
        "_unsent",
        "born",
        "ends_by",
        "lifetime_part",
        "settings",
        "timer",
        "written",
    )

    def __init__(self, now: float, settings: Settings) -> None:
        self.settings = settings
        self.lifetime_part = 1.0  #: of ``settings.timeout``, so that clients who came together do not leave together
        self.written = now  #: when the client was last given something to take
        self.ends_by = math.inf  #: when the stream ends in any case
        self.born = now  #: when it was made
        self.timer: Timer | None = None  #: fires no later than the nearest deadline
        self._beat = math.inf
        self._quiet_since = now  # the time from which self._beat was counted
        self._look = now  # when to look for a client that has vanished
        self._progress = now  # when the client last took something, as far as is known
        self._unsent: int | None = None  # bytes, at the last look, while it is busy
        self._acknowledged: int | None = None  # bytes, at the last look, if there were more to acknowledge
        self._streaming = False
        self._set_beat(now)  # the first one already: so one timer stands for it, and for the view that returns before

    def set_timer(self, stream: Timed, fired: Timer | None = None) -> None:
        """See to it that the timer fires no later than the nearest deadline. From any thread, without the lock.

        :param fired: a timer that has fired, and may be used again.
        """
        while True:
            needless = None
            with stream.lock:
                when = stream.next_deadline()
                if when is None:
                    needless, self.timer = self.timer, None
                elif self.timer is not None and self.timer.when <= when:
                    return
            if when is not None:
                if fired is not None and fired.called is not None:
                    needless, fired = stream.scheduler.call_again(fired, when), None
                else:
                    needless = stream.scheduler.call_at(when, stream.on_timer)
                with stream.lock:
                    nearest = stream.next_deadline()
                    is_set = nearest is not None and nearest >= when
                    if is_set and (self.timer is None or self.timer.when > when):
                        needless, self.timer = self.timer, needless
            if needless is not None:
                stream.scheduler.cancel(needless)
            if when is None or is_set:
                return

    def begin_streaming(self, now: float) -> None:
        """Note that the client begins to get something: from now on there are heartbeats."""
        self._streaming = True
        self.written = self._quiet_since = now
        if not now + EARLIEST_FIRST_BEAT * self.settings.heartbeat <= self._beat <= now + self.settings.heartbeat:
            self._set_beat(now)
        self._look = now + self.settings.write_seconds

    def nearest(self, busy: bool, ended: bool) -> float | None:
        """Return when something may be due; after the end, while there is still something to write, only a slow write.

        :param busy: whether something is being written. Else it is enough to look when a heartbeat is due.
        """
        settings = self.settings
        when = math.inf if ended else self._over
        if not self._streaming:
            if not ended:
                when = min(when, self.born + settings.attach_seconds, self._beat if settings.heartbeat else math.inf)
        elif settings.heartbeat and not ended:
            when = min(when, self._beat)
            if settings.write_seconds and (busy or settings.heartbeat > settings.write_seconds):
                when = min(when, self._look)
        elif settings.write_seconds:
            when = min(when, self._look)
        return None if when == math.inf else when

    def is_look_due(self, now: float) -> bool:
        """Return whether it is time to look for a client that has vanished."""
        return self._streaming and self.settings.write_seconds > 0 and now >= self._look

    def due(self, now: float, busy: bool, unsent: int | None, acknowledged: int | None, ended: bool) -> Due | None:
        """Return what is due.

        :param busy: whether what was taken for the client at :attr:`written` is still being written.
        :param unsent: how many bytes it has not acknowledged; None where that is unknown.
        :param acknowledged: how many it has acknowledged since it came, likewise. Both where it is busy, and where
            :meth:`is_look_due`.
        """
        settings = self.settings
        if now >= self._over and not ended:
            return "timeout"
        if not self._streaming:
            self._beat = math.inf if now >= self._beat else self._beat  # for nobody
            return "attach" if now >= self.born + settings.attach_seconds and not ended else None
        if settings.write_seconds and now >= self._look and self._check_progress(now, busy, unsent, acknowledged):
            return "write"
        if settings.heartbeat and now >= self._beat:
            quiet = self.written <= self._quiet_since
            self._set_beat(now if quiet else self.written)
            if quiet:
                return "heartbeat"
        return None

    @property
    def _over(self) -> float:
        lifetime = self.settings.timeout
        return min(self.ends_by, self.born + lifetime * self.lifetime_part) if lifetime else self.ends_by

    def _check_progress(self, now: float, busy: bool, unsent: int | None, acknowledged: int | None) -> bool:
        """Note whether the client has taken anything, and return whether it is stuck or has vanished."""
        patience = self.settings.write_seconds
        before, self._acknowledged = self._acknowledged, acknowledged if unsent and not busy else None
        if not busy:
            self._unsent, self._look = None, now + patience
            return before is not None and before == self._acknowledged
        if unsent is None:  # only the next write shows progress
            self._progress = max(self._progress, self.written)
        elif unsent == 0 or unsent != self._unsent:
            self._progress = now
        self._unsent, self._look = unsent, now + patience / 4
        return now >= self._progress + patience

    def _set_beat(self, since: float) -> None:
        # Random, so that clients that all got one event do not all get their next heartbeat at once; but one of few
        # times, so that the background thread wakes a few times a second, and not for each of many clients.
        step = self.settings.heartbeat / HEARTBEAT_STEPS
        self._quiet_since = since
        self._beat = since + self.settings.heartbeat * CHANCE.uniform(0.85, 1.0)
        if step and (rounded := self._beat // step * step) > since:
            self._beat = rounded
