"""Events as they are written: encoded once, for any number of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .errors import InvalidEvent
from .event import Dumps, as_event

#: A client is handed so many bytes at once at most. What is under way stays small beside what waits, and a client on a
#: slow line makes progress that can be seen.
BATCH = 65_536


class Frame(NamedTuple):
    """An event as it is written to every client: encoded once, and shared by all of their backlogs."""

    payload: bytes
    name: str | None  #: by which a newer one may replace it, as browsers know it; None where it has no data


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
    return Frame(payload, None if event.data is None else event.event or "message")


class Batch:
    """Frames that go to many clients at once, joined for all of them once.

    :param frames: in order. None at all stands for the end of the streams.
    :param last: the number that their list gave to the last of them; those before it have the numbers before.
    :param when: the time of the clock that heartbeats go by.
    """

    __slots__ = ("chunk", "first", "frames", "is_small", "largest", "last", "payload", "when")

    def __init__(self, frames: Sequence[Frame], last: int, when: float) -> None:
        self.frames = frames
        self.first = last - max(0, len(frames) - 1)
        self.last = last
        self.when = when
        self.payload = frames[0].payload if len(frames) == 1 else b"".join([frame.payload for frame in frames])
        self.chunk = chunk(self.payload)
        self.largest = max((len(frame.payload) for frame in frames), default=0)
        self.is_small = len(self.payload) <= BATCH

    def after(self, number: float) -> Batch:
        """What a client still lacks that has been given all up to this number."""
        return Batch(self.frames[int(number) + 1 - self.first :], self.last, self.when)


def chunk(payload: bytes) -> bytes:
    """The payload as a chunk of a chunked body: RFC 9112, section 7.1."""
    return b"%X\r\n%b\r\n" % (len(payload), payload)
