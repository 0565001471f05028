"""What the tests of replay publish into logs."""

from __future__ import annotations

from flask_sse_emitters.brokers.event_log import Bounds, Log
from flask_sse_emitters.wire.frame import Frame


def publish(log: Log, text: str, kept: int = 1000) -> None:
    with log.guard:
        log.append(Frame(f"data: {text}\n\n".encode(), "message"), Bounds(kept, 0))
