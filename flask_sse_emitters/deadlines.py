"""What one emitter waits for: the end of its lifetime, a view that returns it, its next heartbeat, and a slow write."""

from __future__ import annotations

import random
from typing import Literal, TypeAlias

from .settings import Settings

Due: TypeAlias = Literal["timeout", "attach", "write", "heartbeat"]


class Deadlines:
    """Times of a monotonic clock, in seconds. Not thread-safe: its emitter guards it.

    An event moves none of them: it only sets :attr:`written`, and what was due because nothing had been written is set
    anew when its time has come.
    """

    __slots__ = ("_beat", "_born", "_streaming", "_write", "settings", "written")

    def __init__(self, now: float, settings: Settings) -> None:
        self.settings = settings
        self.written = now  #: when the client was last given something to take
        self._born = now
        self._beat = now
        self._write = now
        self._streaming = False

    def stream(self, now: float) -> None:
        """The client begins to get something: from now on there are heartbeats."""
        self._streaming = True
        self.written = now
        self._beat = self._spread(now)
        self._write = now + self.settings.write_seconds

    def nearest(self, ended: bool) -> float | None:
        """When something may be due; after the end, while there is still something to write, only a slow write."""
        settings = self.settings
        times = []
        if settings.timeout and not ended:
            times.append(self._born + settings.timeout)
        if not self._streaming and not ended:
            times.append(self._born + settings.attach_seconds)
        if self._streaming and settings.write_seconds:
            times.append(self._write)
        if self._streaming and settings.heartbeat and not ended:
            times.append(self._beat)
        return min(times, default=None)

    def due(self, now: float, busy: bool, ended: bool) -> Due | None:
        """What is due, if the client has been busy taking something since :attr:`written`, or has not."""
        settings = self.settings
        if settings.timeout and now >= self._born + settings.timeout and not ended:
            return "timeout"
        if not self._streaming:
            return "attach" if now >= self._born + settings.attach_seconds and not ended else None
        if settings.write_seconds and now >= self._write:
            self._write = (self.written if busy else now) + settings.write_seconds
            if self._write <= now:
                self._write = now + settings.write_seconds
                return "write"
        if settings.heartbeat and now >= self._beat:
            self._beat = self._spread(self.written)
            if self._beat <= now:
                self._beat = self._spread(now)
                return "heartbeat"
        return None

    def _spread(self, since: float) -> float:
        # Drawn anew each time, so that clients that all got one event do not all get their next heartbeat at once.
        return since + self.settings.heartbeat * random.uniform(0.75, 1.0)
