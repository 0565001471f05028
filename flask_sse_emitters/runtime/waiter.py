"""How one thread or greenlet sleeps: until another wakes it, or until a descriptor can be read."""

from __future__ import annotations

import selectors
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from .gevent_loop import GreenletSelector, GreenletWaiter, is_green, unpatched


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


class WakeupSocket:
    """Wakes a thread that waits for descriptors. Any thread may wake it, also one that gevent knows nothing of."""

    def __init__(self) -> None:
        self._inner, self._outer = unpatched("socket", "socketpair")()
        self._inner.setblocking(False)
        self._outer.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to wait for: it can be read once woken, until drained."""
        return int(self._inner.fileno())

    @contextmanager
    def woken_by_signals(self) -> Iterator[None]:
        """Have signals wake the thread as well, while it is the main one: it may be about to sleep as one comes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.set_wakeup_fd(self._outer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def wake(self) -> None:
        """Wake the thread. Never blocks; does nothing once closed."""
        with suppress(OSError):  # full of wake-ups not drained yet, or closed
            self._outer.send(b"\0")

    def drain(self) -> None:
        """Forget all wake-ups so far."""
        with suppress(BlockingIOError):
            self._inner.recv(4096)

    def close(self) -> None:
        """Close both ends."""
        self._inner.close()
        self._outer.close()


class Selector(Protocol):
    """Waits until one of some descriptors can be read. Only for the thread or greenlet that made it."""

    def register(self, descriptor: int, call: Callable[[], object]) -> None:
        """Wait for this descriptor, too."""

    def select(self, seconds: float | None) -> list[Callable[[], object]]:
        """Wait so long at most, None for as long as it takes.

        :return: what was registered with the descriptors that can be read.
        """

    def close(self) -> None:
        """Wait for no descriptor any more."""


def make_selector() -> Selector:
    """Make a selector for the calling thread, or greenlet where threads are greenlets."""
    return GreenletSelector() if is_green() else _ThreadSelector()


class _ThreadSelector:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, descriptor: int, call: Callable[[], object]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, call)

    def select(self, seconds: float | None) -> list[Callable[[], object]]:
        return [key.data for key, _ in self._selector.select(seconds)]

    def close(self) -> None:
        self._selector.close()
