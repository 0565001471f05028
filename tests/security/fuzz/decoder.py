"""Whatever bytes a stream has, and wherever it is cut, it is read as the standard says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from zlib import crc32

from flask_sse_emitters import Event
from flask_sse_emitters.testing import EventDecoder, decode

#: Up to so many bytes a stream is cut at every place.
SHORT = 64


def check(stream: bytes) -> None:
    whole = decode(stream)
    assert whole == read(stream)
    for cut in cuts(stream):
        decoder = EventDecoder()
        assert [event for piece in cut for event in decoder.feed(piece)] == whole, cut


def read(stream: bytes) -> list[Event]:
    """Return all that a browser dispatches: by the steps of WHATWG HTML, section 9.2.6, with the whole text at hand."""
    events = []
    data, name, last_id = "", "", None
    text = stream.decode(errors="replace").removeprefix("\ufeff")
    for line in re.split("\r\n|\r|\n", text)[:-1]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data != "":
                events.append(Event(data[:-1], event=name if name not in ("", "message") else None, id=last_id))
            data, name = "", ""
        elif field == "event":
            name = value
        elif field == "data":
            data = data + value + "\n"
        elif field == "id" and "\0" not in value:
            last_id = value
    return events


def cuts(stream: bytes) -> Iterator[list[bytes]]:
    for size in (1, 2, 3):
        yield [stream[at : at + size] for at in range(0, len(stream), size)]
    places = range(len(stream) + 1) if len(stream) <= SHORT else [crc32(stream) % len(stream)]
    for place in places:
        yield [stream[:place], b"", stream[place:]]
