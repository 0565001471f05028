"""A deadline that counts once for all that a caller does, also where several connections do it."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token

_deadline: ContextVar[float | None] = ContextVar("flask_sse_emitters.deadline", default=None)


class within:  # noqa: N801 - it reads as a part of the statement
    """Bound the time that everything in a ``with`` block takes together; also where several connections do it."""

    __slots__ = ("_before", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._before: Token[float | None]

    def __enter__(self) -> None:
        self._before = _deadline.set(time.monotonic() + self._seconds)

    def __exit__(self, *_error: object) -> None:
        _deadline.reset(self._before)


def seconds_left() -> float | None:
    """Return the time until the deadline, never 0; None where there is no deadline."""
    end = _deadline.get()
    return None if end is None else max(0.001, end - time.monotonic())
