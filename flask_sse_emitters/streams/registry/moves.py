"""Counts of the streams that move from one process to another."""

from __future__ import annotations

from collections import Counter

from ...runtime.locks import native_lock
from ...types import MovedFigures


class Moves:
    """How many streams this process has taken from others, and given to them. Any thread may call.

    :ivar is_leaving: its streams are being given to others: it takes none any more.
    """

    def __init__(self) -> None:
        self.is_leaving = False
        self._lock = native_lock()
        self._in = self._out = 0
        self._refused: Counter[str] = Counter()  # by the reason

    def note_in(self) -> None:
        """Count a stream that another process has given."""
        with self._lock:
            self._in += 1

    def note_out(self) -> None:
        """Count a stream that another process has taken."""
        with self._lock:
            self._out += 1

    def note_refused(self, reason: str, count: int = 1) -> None:
        """Count streams that were to be given to another process, and have not moved."""
        if count:
            with self._lock:
                self._refused[reason] += count

    def figures(self) -> MovedFigures:
        """Return the counts as ``sse.stats()["moved"]`` has them."""
        with self._lock:
            return {"in": self._in, "out": self._out, "refused": dict(self._refused)}
