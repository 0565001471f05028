"""What the streams of one app have been given in this process."""

from __future__ import annotations

from ...runtime.locks import native_lock


class Traffic:
    """Counts since the beginning. Any thread may count, but not while it holds another lock."""

    __slots__ = ("_lock", "bytes", "deliveries", "gaps", "replayed")

    def __init__(self) -> None:
        self._lock = native_lock()
        self.deliveries = 0  #: events times clients, as far as they were written, or given to the server to write
        self.replayed = 0  #: of these, the ones that came from what is kept of a channel
        self.bytes = 0  #: of all bodies, without what frames their chunks
        self.gaps = 0  #: clients that were told of a gap

    def count(self, events: int, size: int, *, replayed: bool = False) -> None:
        """Count events that were given to clients, and their bytes."""
        with self._lock:
            self.deliveries += events
            self.bytes += size
            if replayed:
                self.replayed += events

    def count_gap(self) -> None:
        """Count a client that was told of a gap."""
        with self._lock:
            self.gaps += 1
