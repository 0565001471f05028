"""What the streams of one app have been given in this process."""

from __future__ import annotations

from ..runtime.parking import guard


class Traffic:
    """Counts since the beginning. Any thread may count; who holds another guard may not."""

    __slots__ = ("_guard", "bytes", "deliveries", "gaps", "replayed")

    def __init__(self) -> None:
        self._guard = guard()
        self.deliveries = 0  #: events times clients, as far as they were written, or given to the server to write
        self.replayed = 0  #: of these, the ones that came from what is kept of a channel
        self.bytes = 0  #: of all bodies, without what frames their chunks
        self.gaps = 0  #: clients that were told of a gap

    def count(self, events: int, size: int, *, replayed: bool = False) -> None:
        """So many events more were given to clients, and so many bytes."""
        with self._guard:
            self.deliveries += events
            self.bytes += size
            if replayed:
                self.replayed += events

    def count_gap(self) -> None:
        with self._guard:
            self.gaps += 1
