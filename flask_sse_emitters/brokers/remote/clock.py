"""The clock of a server, translated into that of this process."""

from __future__ import annotations

import math
from collections.abc import Callable

#: Seconds for which the difference of the clocks counts: they run apart.
SKEW_SECONDS = 60.0

#: An event that arrives so many seconds after it was published took long, or the clock of the server was put back: then
#: new events would be forgotten as too old.
LATE_SECONDS = 5.0

#: With it every time of the server's clock is later than now, and so counts as now.
_UNKNOWN_SKEW = math.inf


class ServerClock:
    """Translates times of a server's clock, in milliseconds, into those of this process's, in seconds.

    It learns how far they differ from times that the server sends. Only the thread that listens may call.

    :param now: the clock of this process, as ``time.monotonic`` is one.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._skew = _UNKNOWN_SKEW
        self._measured_at = -math.inf

    def note(self, ms: int) -> None:
        """Note a time that the server's clock has just shown.

        The least difference of the clocks is nearest to the truth: the rest of it is delay.
        """
        now = self.now()
        skew = now - ms / 1000
        if skew < self._skew or now > self._measured_at + SKEW_SECONDS:
            self._skew, self._measured_at = skew, now

    def to_local(self, ms: int) -> float:
        """Return the time here at this time of the server: never later than now, and now while that is unknown."""
        return min(ms / 1000 + self._skew, self.now())

    def doubt_if_late(self, ms: int) -> None:
        """Count every time as now, until the next :meth:`note`, where an event of this time arrives only now."""
        if self.now() - (ms / 1000 + self._skew) > LATE_SECONDS:
            self._skew = _UNKNOWN_SKEW
