"""Which streams hold a thread of the server each: those that were not handed off."""

from __future__ import annotations

from collections.abc import Callable

from ...runtime.locks import native_lock
from ..stream import Stream


class ThreadUse:
    """The streams of one app that hold a thread each. Any thread may call; nothing blocks.

    :ivar threads: so many the server has for requests; None where that is unknown.
    :ivar on_all_taken: is called when the last of them is taken, with their number.
    """

    def __init__(self) -> None:
        self._lock = native_lock()
        self._streams: set[Stream] = set()
        self.threads: int | None = None
        self.on_all_taken: Callable[[int], object] = lambda _count: None

    def take(self, stream: Stream) -> None:
        """Note that the stream holds a thread, until :meth:`leave`."""
        with self._lock:
            self._streams.add(stream)
            taken = len(self._streams)
        if taken == self.threads:
            self.on_all_taken(taken)

    def leave(self, stream: Stream) -> None:
        """Note that the stream holds no thread any more. Idempotent."""
        with self._lock:
            self._streams.discard(stream)
