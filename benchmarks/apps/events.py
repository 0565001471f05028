"""An event with its time, as the load client checks it where another process publishes."""

from __future__ import annotations

import time

#: "data: " and two line ends.
FRAMING = 8


def stamped(number: int, size: int = 100) -> str:
    """Its number, the time at which it is published, and padding up to so many bytes on the wire."""
    return f"{number:010d}{time.monotonic_ns():020d}".ljust(size - FRAMING, "x")
