"""A number of connections, which threads share fairly."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ...runtime.locks import native_lock
from .trouble import before_sending


class FairSemaphore:
    """Lets a number of threads in at a time, in the order in which they came; a lock may starve some of them."""

    def __init__(self, count: int) -> None:
        self._lock = native_lock()
        self._count = self._free = count
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def slot(self, seconds: float) -> Iterator[None]:
        """Wait for a slot, and hold it.

        :raises TimeoutError: where there is none within so many seconds.
        """
        self.acquire(seconds)
        try:
            yield
        finally:
            self.release()

    def acquire(self, seconds: float) -> None:
        """Wait for a slot, and hold it until :meth:`release`.

        :raises TimeoutError: where there is none within so many seconds.
        """
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        is_granted = False
        try:
            is_granted = turn.wait(seconds)
        finally:  # also where a greenlet stops waiting
            if not is_granted:
                self._give_up(turn)
        if not is_granted:
            with before_sending():
                raise TimeoutError(f"all {self._count} connections are busy")

    def release(self) -> None:
        """Let the next in that waits."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            turn = self._waiting.popleft()
        turn.set()

    def _give_up(self, turn: threading.Event) -> None:
        with self._lock:
            is_waiting = turn in self._waiting
            if is_waiting:
                self._waiting.remove(turn)
        if not is_waiting:  # it was granted meanwhile
            self.release()
