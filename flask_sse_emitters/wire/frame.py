"""Frames: events encoded once, for any number of clients."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import InvalidEvent
from .event import PLAIN_TYPES, Dumps, Event, as_event, encode_plain, plain_text

#: One write to a client has at most so many bytes. So the bytes in flight stay few beside the pending ones, and a
#: client on a slow line makes visible progress.
BATCH_BYTES = 65_536

#: The name of the event that ends a stream, or a channel, for good, and the id that its client has then.
END = "~end"


class Frame(NamedTuple):
    """An encoded event, shared by the backlogs of all clients."""

    payload: bytes  #: as on the wire, with the blank line at its end; begins with the id where it has an offset
    name: str | None  #: as browsers know it, by which a newer event may replace it; None where it has no data
    offset: int = 0  #: in its channel, from 1; 0 outside of channels
    body: int = 0  #: the index in the payload after the line of the id
    at: float = 0.0  #: the time of publishing, by the clock of its log

    @property
    def id(self) -> str:
        """The id in the line before its body; empty where it has none."""
        return self.payload[len("id: ") : self.body - 1].decode() if self.body else ""

    @property
    def is_end(self) -> bool:
        """Whether it is the end of its channel, and no event."""
        return self.name == END

    @property
    def is_event(self) -> bool:
        """Whether a client gets an event by it: not by one without data, nor by an end."""
        return self.name is not None and self.name != END


def make_frame(event: Any, dumps: Dumps, max_bytes: int, name: str | None = None) -> Frame:
    """Encode an event, a builder's event, or plain data for any number of clients.

    :param max_bytes: of the encoded event.
    :param name: of the event that has this data, where it is none itself.
    :raises InvalidEvent: where it cannot be encoded, or is larger.
    """
    kind: str | None = name or "message"
    is_plain = type(event) in PLAIN_TYPES and (name is None or type(name) is str)
    payload = encode_plain(event, name, dumps) if is_plain else None
    if payload is None:
        event = as_event(event) if name is None else Event(event, event=name)
        payload = event.encode(dumps)
        kind = None if event.data is None else plain_text(event.event or "message")
    if len(payload) > max_bytes:
        raise InvalidEvent(
            f"the event has {len(payload):,} bytes, and SSE_MAX_EVENT_BYTES allows {max_bytes:,}: "
            "raise that, or send a reference from which clients fetch the rest"
        )
    return Frame(payload, kind)


# Each line of data begins with its field's name, so that no data looks like this.
_ID_LINES = re.compile(rb"^id: .*\n", re.MULTILINE)

#: Ends the channel that it is published to. It has no bytes but the id that a channel gives it.
CHANNEL_END = Frame(b"", END)

#: What the client of a stream that is over for good is written last. The data line is there although it is empty: some
#: parsers of clients drop a block without one, and its id.
FINAL_BLOCK = b"event: ~end\nid: ~end\ndata:\n\n"


def without_id(frame: Frame) -> Frame:
    """Return the frame of an event without the line of its id, if it has one."""
    if frame.body:
        return frame._replace(payload=frame.payload[frame.body :], body=0)
    return frame._replace(payload=without_ids(frame.payload)) if b"id: " in frame.payload else frame


def without_ids(payload: bytes) -> bytes:
    """Return encoded events without the lines of their ids."""
    return _ID_LINES.sub(b"", payload)


def count_events(frames: Sequence[Frame]) -> int:
    """Return how many of the frames are events."""
    return sum(frame.is_event for frame in frames)


def chunk(payload: bytes) -> bytes:
    """Return the payload as a chunk of a chunked body: RFC 9112, section 7.1."""
    return b"%X\r\n%b\r\n" % (len(payload), payload)
