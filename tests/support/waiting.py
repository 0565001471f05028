"""Wait for a condition, patiently and never longer than needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds that a test waits for what must happen, however slow the machine is.
PATIENCE = 30.0


def until(condition: Callable[[], T], what: str = "the condition", seconds: float = PATIENCE) -> T:
    """Wait until the condition is true, and return its value."""
    deadline = time.monotonic() + seconds
    pause = 0.005
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}; it is {value!r}")
        time.sleep(pause)
        pause = min(pause * 1.2, 0.05)  # what takes long is asked less often: many conditions are requests to a server
    return value
