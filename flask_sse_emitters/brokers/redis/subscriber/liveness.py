"""Whether a connection to Redis is alive, or only silent: it is asked when nothing has come for some time."""

from __future__ import annotations

from enum import Enum, auto

#: Seconds of silence after which Redis is pinged, and after which it counts as gone.
PING_AFTER_SECONDS, GONE_AFTER_SECONDS = 3.0, 8.0

#: Seconds that the answer to a ping may take.
_ANSWER_SECONDS = GONE_AFTER_SECONDS - PING_AFTER_SECONDS


class Phase(Enum):
    """How far a connection has come."""

    SETTLING = auto()  #: it has not been through all subscriptions and lookups: it is pinged at once
    SETTLED = auto()  #: it has, and works


class Ping(Enum):
    """What has become of the last ping."""

    ANSWERED = auto()  #: something has come since, or there was none
    AWAITED = auto()


class Liveness:
    """The liveness of one connection. Its times are those of ``time.monotonic``, in seconds; it does nothing itself.

    :param now: when the connection began.
    """

    def __init__(self, now: float) -> None:
        self.phase = Phase.SETTLING
        self._ping = Ping.ANSWERED
        self._received_at = self._pinged_at = now

    @property
    def due(self) -> float:
        """The time at which to :meth:`check`, unless something is received before."""
        if self._ping is Ping.AWAITED:
            return self._pinged_at + _ANSWER_SECONDS
        return self._received_at + (PING_AFTER_SECONDS if self.phase is Phase.SETTLED else 0.0)

    def received(self, now: float) -> None:
        """Note that Redis has sent something."""
        self._received_at, self._ping = now, Ping.ANSWERED

    def pinged(self, now: float) -> None:
        """Note that Redis was pinged."""
        self._pinged_at, self._ping = now, Ping.AWAITED

    def check(self, now: float) -> bool:
        """Return whether it is time to ping Redis.

        :raises TimeoutError: where Redis has not answered the last ping in time.
        """
        if now < self.due:
            return False
        if self._ping is Ping.AWAITED:
            raise TimeoutError(f"it has not answered for {now - self._received_at:.0f} s")
        return True
