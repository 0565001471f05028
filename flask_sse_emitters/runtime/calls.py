"""Calls in the background: of what may raise, of what may be gone, and once a number of answers are there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakMethod

from .locks import native_lock

log = logging.getLogger("flask_sse_emitters.lanes")

_T = TypeVar("_T")


def call_and_log(call: Callable[[], object]) -> object:
    """Call, and log what it raises: also SystemExit, which must not end a thread that serves all streams."""
    try:
        return call()
    except BaseException:
        log.exception("an error in %r, which was called in the background", call)
        return None


def weakly(method: Callable[[], _T]) -> Callable[[], _T | None]:
    """Make a call of a bound method that does not keep its object alive: it does nothing once that is gone.

    For what a thread or a timer calls, which would otherwise keep an app that was dropped.
    """
    reference = WeakMethod(method)

    def call() -> _T | None:
        found = reference()
        return None if found is None else found()

    return call


class Countdown:
    """Calls a method once it has been called so many times itself, by any thread. Does not keep its object alive."""

    __slots__ = ("_call", "_left", "_lock")

    def __init__(self, count: int, call: Callable[[], object]) -> None:
        self._call = weakly(call)
        self._lock = native_lock()
        self._left = count

    def __call__(self) -> None:
        """Count one answer; never blocks, but for what the last one calls."""
        with self._lock:
            self._left -= 1
            is_last = not self._left
        if is_last:
            self._call()

    @property
    def is_over(self) -> bool:
        """Whether all answers are there."""
        return self._left <= 0
