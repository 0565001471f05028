"""Whether Redis can be reached, said once for each change."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import redis

from ..parking import guard

log = logging.getLogger(__name__)


#: Seconds for which Redis counts as out of reach though it was heard since: it may be too slow for those who publish.
DOUBT = 5.0

#: What fails and works in turns is said once in so many seconds.
SAID_EVERY = 10.0


class Health:
    """What fails, and what does not. Any thread may call.

    :param shown: the URL, as it may be shown.
    :param changed: is called when one state has taken the place of the other.
    """

    def __init__(self, shown: str, changed: Callable[[], object] = lambda: None) -> None:
        self._shown = shown
        self._changed = changed
        self._guard = guard()
        self._errors: dict[str, str] = {}
        self._since = 0.0
        self._lost = 0.0  # when Redis could not be reached to publish, last; 0 where it could, or refused
        self._said = -SAID_EVERY
        self._is_said = False  # that it is degraded

    def fails(self, what: str, error: BaseException) -> None:
        text = f"{error}".rstrip(".") or type(error).__name__
        now = time.monotonic()
        with self._guard:
            begins = not self._errors
            if begins:
                self._since = now
            self._errors[what] = text
            if what == "publishing":
                self._lost = 0.0 if isinstance(error, redis.ResponseError) else now
            says = not self._is_said and now > self._said + SAID_EVERY
            if says:
                self._is_said, self._said = True, now
        if says:
            log.warning("degraded: %s: %s failed: %s; streams stay open", self._shown, what, text)
        if begins:
            self._changed()

    def works(self, what: str) -> None:
        """That works."""
        if self._errors:
            self._clear(what)

    def hears(self, begins: bool) -> None:
        """Redis was heard. Where that begins anew, nothing else is known to fail any more."""
        if not self._errors:
            return
        if begins:
            self._clear(*self._errors)
        elif self._lost and time.monotonic() > self._lost + DOUBT:
            self._clear("publishing")

    def _clear(self, *parts: str) -> None:
        with self._guard:
            was_degraded = bool(self._errors)
            for part in parts:
                self._errors.pop(part, None)
            ends = was_degraded and not self._errors
            says = self._is_said and not self._errors
            self._is_said = self._is_said and not says
        if says:
            log.warning("%s is back, after %.1f s", self._shown, time.monotonic() - self._since)
        if ends:
            self._changed()

    def status(self) -> dict[str, Any]:
        with self._guard:
            if not self._errors:
                return {"url": self._shown, "state": "ok"}
            error = "; ".join(f"{what}: {error}" for what, error in self._errors.items())
            return {
                "url": self._shown,
                "state": "degraded",
                "error": error,
                "seconds": round(time.monotonic() - self._since, 1),
            }
