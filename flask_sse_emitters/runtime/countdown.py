"""Waiting for a number of answers, without a thread."""

from __future__ import annotations

from collections.abc import Callable

from .locks import native_lock
from .worker_pool import weakly


class Countdown:
    """Calls a method once it has been called so many times itself, by any thread. Does not keep its object alive."""

    __slots__ = ("_call", "_left", "_lock")

    def __init__(self, count: int, call: Callable[[], object]) -> None:
        self._call = weakly(call)
        self._lock = native_lock()
        self._left = count

    def __call__(self) -> None:
        """Count one answer."""
        with self._lock:
            self._left -= 1
            is_last = not self._left
        if is_last:
            self._call()

    @property
    def is_over(self) -> bool:
        """Whether all answers have come."""
        return self._left <= 0
