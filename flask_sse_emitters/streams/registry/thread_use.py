"""Which streams hold a thread of the server each: those that were not handed off."""

from __future__ import annotations

from collections.abc import Callable

from ...runtime.locks import native_lock
from ...types import ServerFigures
from ..stream import Stream


class ThreadUse:
    """The streams of one app that hold a thread each. Any thread may call; nothing blocks.

    :ivar server: its name, as far as it shows; None before the first stream.
    :ivar threads: so many the server has for requests; None where that is unknown, or there is no limit.
    :ivar on_all_taken: is called when the last of them is taken, with their number.
    :ivar declined: why the last stream that was not handed off was not.
    """

    def __init__(self) -> None:
        self._lock = native_lock()
        self._streams: set[Stream] = set()
        self.server: str | None = None
        self.threads: int | None = None
        self.on_all_taken: Callable[[int], object] = lambda _count: None
        self.declined: str | None = None

    def figures(self) -> ServerFigures:
        """Return what :meth:`.SSE.stats` shows of the server."""
        return {"name": self.server, "threads": self.threads, "declined": self.declined}

    def describe(self) -> str:
        """Name the server, and its threads, where they are known."""
        return (self.server or "unknown") + (f", {self.threads} threads" if self.threads else "")

    def take(self, stream: Stream, reason: str) -> None:
        """Note that the stream holds a thread, until :meth:`leave`, and why it was not handed off."""
        self.declined = reason
        with self._lock:
            self._streams.add(stream)
            taken = len(self._streams)
        if taken == self.threads:
            self.on_all_taken(taken)

    def leave(self, stream: Stream) -> None:
        """Note that the stream holds no thread any more. Idempotent."""
        with self._lock:
            self._streams.discard(stream)
