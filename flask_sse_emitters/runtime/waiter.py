"""How one thread or greenlet sleeps until another, from any thread, wakes it."""

from __future__ import annotations

import threading
from typing import Protocol

from .gevent_loop import GreenletWaiter, is_green


class Waiter(Protocol):
    """One sleeper, and how to wake it.

    For each :meth:`wait` call :meth:`wake` or :meth:`wake_with` once, before it or during it. A second call is a
    mistake: it raises RuntimeError where the sleeper is a thread.
    """

    def wait(self) -> bytes | None:
        """Sleep until woken; return the payload of :meth:`wake_with`. Only the thread or greenlet that made this."""

    def wake(self) -> None:
        """Wake the sleeper, or keep its next sleep from beginning. From any thread; never blocks."""

    def wake_with(self, payload: bytes) -> None:
        """Wake the sleeper, and have its :meth:`wait` return this.

        Only on the main loop (see :func:`.gevent_loop.on_main_loop`).
        """


def make_waiter() -> Waiter:
    """Make a waiter for the calling thread, or greenlet where threads are greenlets."""
    return GreenletWaiter() if is_green() else _ThreadWaiter()


class _ThreadWaiter:
    __slots__ = ("_payload", "_woken")

    def __init__(self) -> None:
        self._payload: bytes | None = None
        self._woken = threading.Lock()  # held until it is woken
        self._woken.acquire()

    def wait(self) -> bytes | None:
        self._woken.acquire()
        payload, self._payload = self._payload, None
        return payload

    def wake(self) -> None:
        self._woken.release()

    def wake_with(self, payload: bytes) -> None:
        self._payload = payload
        self._woken.release()
