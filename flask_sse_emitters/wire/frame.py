"""Events as they are written: encoded once, for any number of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import InvalidEvent
from .event import Dumps, as_event, plain_text

#: A client is handed so many bytes at once at most. What is under way stays small beside what waits, and a client on a
#: slow line makes progress that can be seen.
BATCH_BYTES = 65_536


class Frame(NamedTuple):
    """An event as it is written to every client: encoded once, and shared by all of their backlogs."""

    payload: bytes  #: as it is on the wire, with the blank line at its end, and with its id where it has an offset
    name: str | None  #: by which a newer one may replace it, as browsers know it; None where it has no data
    offset: int = 0  #: in its channel, from 1; 0 outside of channels
    body: int = 0  #: where the payload begins after its id
    at: float = 0.0  #: when it was published, by the clock of its log


def numbered(frame: Frame, epoch: str, offset: int, at: float) -> Frame:
    """The frame with its id in a channel before it."""
    line = b"id: %b-%d\n" % (epoch.encode(), offset)
    return Frame(line + frame.payload, frame.name, offset, len(line), at)


def make_frame(event: Any, dumps: Dumps, max_bytes: int) -> Frame:
    """An event, a builder's or plain data, encoded for any number of clients.

    :raises InvalidEvent: where it cannot be written, or is larger.
    """
    event = as_event(event)
    payload = event.encode(dumps)
    if len(payload) > max_bytes:
        raise InvalidEvent(
            f"the event has {len(payload):,} bytes, and SSE_MAX_EVENT_BYTES allows {max_bytes:,}: "
            "raise that, or send a reference from which clients fetch the rest"
        )
    return Frame(payload, None if event.data is None else plain_text(event.event or "message"))


def count_events(frames: Sequence[Frame]) -> int:
    """How many of them are events, and not comments or the like alone."""
    return sum(frame.name is not None for frame in frames)


def chunk(payload: bytes) -> bytes:
    """The payload as a chunk of a chunked body: RFC 9112, section 7.1."""
    return b"%X\r\n%b\r\n" % (len(payload), payload)
