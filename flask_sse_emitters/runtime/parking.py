"""How a thread or a greenlet sleeps until another, from any thread, wakes it."""

from __future__ import annotations

import threading
from typing import Protocol

from .gevent_loop import GreenletParker, is_green


class Parker(Protocol):
    """Wakes one sleeper.

    For each :meth:`park` one :meth:`unpark` or :meth:`give` may be called, before it or during it. A second one is a
    mistake of the caller: it raises RuntimeError where the sleeper is a thread.
    """

    def park(self) -> bytes | None:
        """Sleep until unparked; gives what :meth:`give` was given. Only by the thread or greenlet that owns this."""

    def unpark(self) -> None:
        """Wake the sleeper, or keep its next sleep from beginning. From any thread; never blocks."""

    def give(self, payload: bytes) -> None:
        """Wake the sleeper with this. Only on the main loop (see :func:`.gevent_loop.on_main_loop`)."""


def parker() -> Parker:
    """A parker for whoever calls this: a greenlet where threads are greenlets, else a thread."""
    return GreenletParker() if is_green() else _ThreadParker()


class _ThreadParker:
    __slots__ = ("_given", "_lock")

    def __init__(self) -> None:
        self._given: bytes | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def park(self) -> bytes | None:
        self._lock.acquire()
        given, self._given = self._given, None
        return given

    def unpark(self) -> None:
        self._lock.release()

    def give(self, payload: bytes) -> None:
        self._given = payload
        self._lock.release()
