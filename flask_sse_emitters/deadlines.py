"""What one emitter waits for: the end of its lifetime, a view that returns it, and its next heartbeat."""

from __future__ import annotations

import random
from typing import Literal, TypeAlias

from .settings import Settings

Due: TypeAlias = Literal["timeout", "attach", "heartbeat"]


class Deadlines:
    """Times of a monotonic clock, in seconds. Not thread-safe: its emitter guards it."""

    __slots__ = ("_beat", "_born", "_streaming", "settings", "written")

    def __init__(self, now: float, settings: Settings) -> None:
        self.settings = settings
        self.written = now  #: when the client last got something
        self._born = now
        self._beat = now
        self._streaming = False

    def stream(self, now: float) -> None:
        """The client begins to get something: from now on there are heartbeats."""
        self._streaming = True
        self.written = now
        self._beat = self._spread(now)

    def nearest(self) -> float | None:
        times = [self._born + self.settings.timeout] if self.settings.timeout else []
        if not self._streaming:
            times.append(self._born + self.settings.attach_seconds)
        elif self.settings.heartbeat:
            times.append(self._beat)
        return min(times, default=None)

    def due(self, now: float) -> Due | None:
        """What is due. A heartbeat that is, or that an event has put off, is set anew."""
        if self.settings.timeout and now >= self._born + self.settings.timeout:
            return "timeout"
        if not self._streaming:
            return "attach" if now >= self._born + self.settings.attach_seconds else None
        if now < self._beat:
            return None
        self._beat = self._spread(self.written)
        if self._beat > now:
            return None
        self._beat = self._spread(now)
        return "heartbeat"

    def _spread(self, since: float) -> float:
        # Drawn anew each time, so that clients that all got one event do not all get their next heartbeat at once.
        return since + self.settings.heartbeat * random.uniform(0.75, 1.0)
