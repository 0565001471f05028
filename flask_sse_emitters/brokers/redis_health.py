"""Whether Redis can be reached, said once for each change."""

from __future__ import annotations

import logging
import time
from typing import Any

from ..parking import guard

log = logging.getLogger(__name__)


class Health:
    """What fails, and what does not. Any thread may call.

    :param shown: the URL, as it may be shown.
    """

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._guard = guard()
        self._errors: dict[str, str] = {}
        self._since = 0.0

    def fails(self, what: str, error: BaseException) -> None:
        text = f"{error}".rstrip(".") or type(error).__name__
        with self._guard:
            first = not self._errors
            if first:
                self._since = time.monotonic()
            self._errors[what] = text
        if first:
            log.warning(
                "degraded: %s: %s failed: %s. Streams stay open, and it is tried again", self._shown, what, text
            )

    def works(self, what: str) -> None:
        """That works. Where one can listen again, nothing else is known to fail any more."""
        if not self._errors:
            return
        with self._guard:
            before = bool(self._errors)
            if what == "listening":
                self._errors.clear()
            else:
                self._errors.pop(what, None)
            back = before and not self._errors
        if back:
            log.warning("%s is back, after %.1f s", self._shown, time.monotonic() - self._since)

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
