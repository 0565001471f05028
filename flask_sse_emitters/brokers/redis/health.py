"""Whether Redis works for this process, logged once for each change.

Parts of the work fail and work again on their own, and each says so itself: listening, reading, counting clients. Only
publishing depends on the app, which may not publish again for hours. So it counts as working again where something else
shows it: Redis was heard, where it was out of reach; or it took another write, where it refused one.

A channel whose keys hold something else is no outage: it is kept apart, under its own name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ...runtime.locks import native_lock
from .errors import AWAY, KEYS, RIGHTS, Trouble, diagnose, shown

log = logging.getLogger("flask_sse_emitters.brokers.redis_health")

#: Seconds for which publishing counts as failing though another sign says it works: Redis may be slow, or nearly full.
DOUBT = 5.0

#: Seconds after which a failed publish no longer counts where nothing else tells, as in a process without clients.
STALE = 60.0

#: Seconds in which an outage that comes and goes is logged once.
LOGGED_EVERY = 10.0

#: Channels that are remembered as failing at most; more are neither logged nor shown.
MOST_CHANNELS = 100

PUBLISHING = "publishing"


class _Failure(NamedTuple):
    trouble: Trouble
    text: str
    at: float  # the last time


class Health:
    """What fails, and what does not. Any thread may call; nothing here blocks.

    :param url: the address of Redis, as it may be shown.
    :param changed: is called when one state has taken the place of the other.
    """

    def __init__(self, url: str, changed: Callable[[], object] = lambda: None) -> None:
        self._url = url
        self._changed = changed
        self._lock = native_lock()
        self._failing: dict[str, _Failure] = {}
        self._channels: dict[tuple[str, str], str] = {}  # what fails for one channel alone, by that and its name
        self._since = 0.0
        self._logged_at = -LOGGED_EVERY
        self._logged: set[str] = set()  # causes that were logged since the outage began

    def fails(self, what: str, error: BaseException, keys: Sequence[str] = ()) -> None:
        """Note that a part of the work fails. Each cause is logged once in an outage.

        :param keys: those that were to be read or written.
        """
        trouble = diagnose(error)
        text = f"{shown(error)}; {self.advice(trouble, keys)}"
        now = time.monotonic()
        with self._lock:
            begins = not self._failing
            if begins:
                self._since = now
            self._failing[what] = _Failure(trouble, text, now)
            logs = trouble.cause not in self._logged and (self._logged or now > self._logged_at + LOGGED_EVERY)
            if logs:
                self._logged.add(trouble.cause)
                self._logged_at = now
        if logs:
            log.warning("degraded: %s: %s failed: %s; streams stay open", self._url, what, text)
        if begins:
            self._changed()

    def works(self, what: str) -> None:
        """Note that this part of the work succeeds."""
        if what in self._failing:
            self._clear(what)

    def hears(self, begins: bool) -> None:
        """Note that Redis was heard.

        :param begins: for the first time on a new connection: then nothing is out of reach any more.
        """
        if begins:
            self.works("listening")
        self._believe(lambda failure: failure.trouble.cause == AWAY.cause, 0.0 if begins else DOUBT)

    def writes(self) -> None:
        """Note that Redis takes what is written."""
        self._believe(lambda failure: failure.trouble is not RIGHTS, DOUBT)

    @property
    def is_refused(self) -> bool:
        """Whether Redis has refused to publish, and another write may show that it does no longer."""
        failure = self._failing.get(PUBLISHING)
        return failure is not None and failure.trouble.was_refused and failure.trouble is not RIGHTS

    def channel_fails(self, what: str, channel: str, keys: Sequence[str], error: BaseException) -> None:
        """Note what fails for one channel alone. It is logged once, until that works."""
        text = f"channel {channel!r}: {what} failed: {shown(error)}; {self.advice(KEYS, keys)}"
        with self._lock:
            is_new = (what, channel) not in self._channels and len(self._channels) < MOST_CHANNELS
            if is_new:
                self._channels[what, channel] = text
        if is_new:
            log.warning("%s: %s", self._url, text)

    def channel_works(self, what: str, channel: str) -> None:
        """Note that this works for the channel."""
        if self._channels:
            with self._lock:
                self._channels.pop((what, channel), None)

    def advice(self, trouble: Trouble, keys: Sequence[str] = ()) -> str:
        """Say what to change."""
        return trouble.advice.format(url=self._url, keys=" and ".join(keys))

    def status(self) -> dict[str, Any]:
        """See :meth:`.Broker.status`."""
        self._believe(lambda _failure: True, STALE)
        with self._lock:
            troubles = {"troubles": list(self._channels.values())} if self._channels else {}
            if not self._failing:
                return {"url": self._url, "state": "ok", **troubles}
            error = "; ".join(f"{what}: {failure.text}" for what, failure in self._failing.items())
            seconds = round(time.monotonic() - self._since, 1)
            return {"url": self._url, "state": "degraded", "error": error, "seconds": seconds, **troubles}

    def _believe(self, is_over: Callable[[_Failure], bool], doubt: float) -> None:
        """Count publishing as working again where this failure is over, and so many seconds old."""
        failure = self._failing.get(PUBLISHING)
        if failure is not None and is_over(failure) and time.monotonic() >= failure.at + doubt:
            self._clear(PUBLISHING)

    def _clear(self, what: str) -> None:
        with self._lock:
            ends = self._failing.pop(what, None) is not None and not self._failing
            logs = ends and bool(self._logged)
            if ends:
                self._logged.clear()
        if logs:
            log.warning("%s is back, after %.1f s", self._url, time.monotonic() - self._since)
        if ends:
            self._changed()
