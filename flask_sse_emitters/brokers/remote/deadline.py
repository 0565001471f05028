"""A deadline that counts once for all that a caller does, also where several connections do it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("flask_sse_emitters.deadline", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound the time that everything in this block takes together; also where several connections do it."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float | None:
    """Return the time until the deadline, never 0; None where there is no deadline."""
    end = _deadline.get()
    return None if end is None else max(0.001, end - time.monotonic())
