"""The health of a server as this process sees it, logged once for each change.

Parts of the work fail and recover on their own, and each reports it itself: listening, reading, counting clients. Only
publishing depends on the app, which may not publish again for hours. So it counts as recovered where something else
shows it: the server has sent something, where it was out of reach; or it took another write, where it refused one.

What fails for one channel alone is no outage: it is kept apart, under its own name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...runtime.locks import native_lock
from ...types import BrokerStatus
from .trouble import AWAY_CAUSE, RIGHTS_CAUSE, Trouble

#: Seconds for which publishing counts as failing though another sign shows it works: the server may be slow, or nearly
#: full.
DOUBT_SECONDS = 5.0

#: Seconds after which a failed publish no longer counts where there is no other sign, as in a process without clients.
STALE_SECONDS = 60.0

#: Seconds in which an outage that comes and goes is logged once.
LOG_SECONDS = 10.0

#: So many channels are remembered as failing at most; more are neither logged nor shown.
MAX_FAILING_CHANNELS = 100

#: The parts of the work, as logs and ``sse.stats()`` name them.
PUBLISHING, LISTENING, READING, COUNTING = "publishing", "listening", "reading", "counting clients"


class _Failure(NamedTuple):
    trouble: Trouble
    text: str
    at: float  # the last time


class Health:
    """The parts of the work that fail. Any thread may call; nothing here blocks.

    :param url: the address of the server, as it may be shown.
    :param changed: is called when the state has changed from ``ok`` to ``degraded``, or back.
    :param diagnose: finds out what an error means.
    :param text: returns an error's own text.
    """

    def __init__(
        self,
        url: str,
        changed: Callable[[], object],
        diagnose: Callable[[BaseException], Trouble],
        text: Callable[[BaseException], str],
        log: logging.Logger,
    ) -> None:
        self._url = url
        self._diagnose = diagnose
        self._text = text
        self._log = log
        self._changed = changed
        self._lock = native_lock()
        self._failing: dict[str, _Failure] = {}
        self._channels: dict[tuple[str, str], str] = {}  # by the part that fails for one channel alone, and its name
        self._since = 0.0
        self._logged_at = -LOG_SECONDS
        self._logged: set[str] = set()  # causes that were logged since the outage began

    def failed(self, part: str, error: BaseException, keys: Sequence[str] = ()) -> None:
        """Note that a part of the work failed. Each cause is logged once in an outage.

        :param keys: what was to be read or written, where the advice names it.
        """
        trouble = self._diagnose(error)
        text = f"{self._text(error)}; {self.advice(trouble, keys)}"
        now = time.monotonic()
        with self._lock:
            begins = not self._failing
            if begins:
                self._since = now
            self._failing[part] = _Failure(trouble, text, now)
            logs = trouble.cause not in self._logged and (self._logged or now > self._logged_at + LOG_SECONDS)
            if logs:
                self._logged.add(trouble.cause)
                self._logged_at = now
        if logs:
            self._log.warning("degraded: %s: %s failed: %s; streams stay open", self._url, part, text)
        if begins:
            self._changed()

    def worked(self, part: str) -> None:
        """Note that a part of the work succeeded."""
        if part in self._failing:
            self._clear(part)

    def connected(self) -> None:
        """Note that a new connection to listen on works: the server is not out of reach any more."""
        self.worked(LISTENING)
        self._recover_publishing(_is_out_of_reach, 0.0)

    def received(self) -> None:
        """Note that the server has sent something."""
        self._recover_publishing(_is_out_of_reach, DOUBT_SECONDS)

    def wrote(self) -> None:
        """Note that the server took a write."""
        self._recover_publishing(lambda failure: failure.trouble.cause != RIGHTS_CAUSE, DOUBT_SECONDS)

    @property
    def is_refused(self) -> bool:
        """Whether the server refused to publish, for a reason whose end another write would show."""
        failure = self._failing.get(PUBLISHING)
        return failure is not None and failure.trouble.was_refused and failure.trouble.cause != RIGHTS_CAUSE

    def channel_failed(self, part: str, channel: str, keys: Sequence[str], error: BaseException) -> None:
        """Note that a part of the work failed for one channel alone. It is logged once, until that works."""
        text = f"channel {channel!r}: {part} failed: {self._text(error)}; {self.advice(self._diagnose(error), keys)}"
        with self._lock:
            is_new = (part, channel) not in self._channels and len(self._channels) < MAX_FAILING_CHANNELS
            if is_new:
                self._channels[part, channel] = text
        if is_new:
            self._log.warning("%s: %s", self._url, text)

    def channel_worked(self, part: str, channel: str) -> None:
        """Note that a part of the work succeeded for the channel."""
        if self._channels:
            with self._lock:
                self._channels.pop((part, channel), None)

    def advice(self, trouble: Trouble, keys: Sequence[str] = ()) -> str:
        """Return what to change, as a sentence of an error."""
        return trouble.advice.format(url=self._url, keys=" and ".join(keys))

    def status(self) -> BrokerStatus:
        """Return the state of the broker: see :meth:`.Broker.status`."""
        self._recover_publishing(lambda _failure: True, STALE_SECONDS)
        with self._lock:
            status: BrokerStatus = {"url": self._url, "state": "ok"}
            if self._channels:
                status["troubles"] = list(self._channels.values())
            if self._failing:
                status["state"] = "degraded"
                status["error"] = "; ".join(f"{part}: {failure.text}" for part, failure in self._failing.items())
                status["seconds"] = round(time.monotonic() - self._since, 1)
            return status

    def _recover_publishing(self, is_over: Callable[[_Failure], bool], doubt: float) -> None:
        """Count publishing as recovered where its failure is over, and so many seconds old."""
        failure = self._failing.get(PUBLISHING)
        if failure is not None and is_over(failure) and time.monotonic() >= failure.at + doubt:
            self._clear(PUBLISHING)

    def _clear(self, part: str) -> None:
        with self._lock:
            ends = self._failing.pop(part, None) is not None and not self._failing
            logs = ends and bool(self._logged)
            if ends:
                self._logged.clear()
        if logs:
            self._log.warning("%s is back, after %.1f s", self._url, time.monotonic() - self._since)
        if ends:
            self._changed()


def _is_out_of_reach(failure: _Failure) -> bool:
    return failure.trouble.cause == AWAY_CAUSE
