"""Events as they are written: encoded once, for any number of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ..errors import InvalidEvent
from .event import Dumps, as_event, plain_text

#: A client is handed so many bytes at once at most. What is under way stays small beside what waits, and a client on a
#: slow line makes progress that can be seen.
BATCH = 65_536


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


class Receiver(Protocol):
    """What of a member of a list matters here: see :class:`.Membership`."""

    served: float
    is_plain: bool

    def stamped(self, frames: Sequence[Frame]) -> Sequence[Frame]: ...


class Batch:
    """Frames that go to many clients at once, joined for all of them once.

    :param frames: in order. None at all stands for the end of the streams.
    :param last: the number that their list gave to the last of them; those before it have the numbers before.
    :param when: the time of the clock that heartbeats go by.
    """

    __slots__ = ("chunk", "events", "first", "frames", "is_small", "largest", "last", "payload", "when")

    def __init__(self, frames: Sequence[Frame], last: int, when: float) -> None:
        self.frames = frames
        self.events = count_events(frames)
        self.first = last - max(0, len(frames) - 1)
        self.last = last
        self.when = when
        self.payload = frames[0].payload if len(frames) == 1 else b"".join([frame.payload for frame in frames])
        self.chunk = chunk(self.payload)
        self.largest = max((len(frame.payload) for frame in frames), default=0)
        self.is_small = len(self.payload) <= BATCH

    def payload_for(self, member: Receiver) -> bytes:
        """All of it, as it is written to this client."""
        return self.payload if member.is_plain else b"".join([each.payload for each in member.stamped(self.frames)])

    def rest_for(self, member: Receiver) -> Batch:
        """What this client still lacks, as it is written to it."""
        if member.is_plain and member.served < self.first:
            return self
        lacking = self.frames[int(max(0, member.served + 1 - self.first)) :]
        return Batch(member.stamped(lacking), self.last, self.when)


def count_events(frames: Sequence[Frame]) -> int:
    """How many of them are events, and not comments or the like alone."""
    return sum(frame.name is not None for frame in frames)


def chunk(payload: bytes) -> bytes:
    """The payload as a chunk of a chunked body: RFC 9112, section 7.1."""
    return b"%X\r\n%b\r\n" % (len(payload), payload)
