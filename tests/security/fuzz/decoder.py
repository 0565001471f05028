"""Whatever bytes a stream has, and wherever it is cut, it is read as the standard says; and events come back whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from flask_sse_emitters import Event, InvalidEvent
from flask_sse_emitters.testing import EventDecoder, decode

#: Up to so many bytes a stream is cut at every place.
SHORT = 64

#: Stands between the parts that an event is made of; it is no part of any UTF-8.
BETWEEN = b"\xff"


class Told(NamedTuple):
    name: str
    id: str | None
    data: str


def check(stream: bytes) -> None:
    whole = decode(stream)
    assert [told(event) for event in whole] == read(stream)
    for cut in cuts(stream):
        decoder = EventDecoder()
        assert [event for piece in cut for event in decoder.feed(piece)] == whole, cut
    check_round_trip(stream)


def told(event: Event) -> Told:
    assert event.id is None or isinstance(event.id, str)
    assert (event.retry, event.comment) == (None, None)
    return Told(event.event or "message", event.id, event.data)


def read(stream: bytes) -> list[Told]:
    """Return all that a browser dispatches: by the steps of WHATWG HTML, section 9.2.6, with the whole text at hand."""
    events = []
    data, name, last_id = "", "", None
    for line in lines(stream.decode(errors="replace").removeprefix("\ufeff"))[:-1]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data != "":
                events.append(Told(name if name != "" else "message", last_id, data[:-1]))
            data, name = "", ""
        elif field == "event":
            name = value
        elif field == "data":
            data = data + value + "\n"
        elif field == "id" and "\0" not in value:
            last_id = value
    return events


def lines(text: str) -> list[str]:
    return re.split("\r\n|\r|\n", text)


def cuts(stream: bytes) -> Iterator[list[bytes]]:
    for size in (1, 2, 3):
        yield [stream[at : at + size] for at in range(0, len(stream), size)]
    places = range(len(stream) + 1) if len(stream) <= SHORT else [crc32(stream) % len(stream)]
    for place in places:
        yield [stream[:place], b"", stream[place:]]


def check_round_trip(parts: bytes) -> None:
    """Make an event of the parts, as far as they may be in it, and have it read."""
    data, name, own_id, comment, *_ = [*(part.decode(errors="replace") for part in parts.split(BETWEEN)), *[""] * 4]
    number = crc32(parts)
    event = Event(
        data,
        event=allowed("event", name, "\r\n"),
        id=allowed("id", own_id, "\r\n\0"),
        retry=number if number % 2 else None,
        comment=comment if number % 3 else None,
    )
    should = Told(event.event or "message", None if event.id is None else str(event.id), "\n".join(lines(data)))
    wire = event.encode()
    assert read(wire) == [should]
    assert [told(each) for each in decode(b": before\n\n" + wire + wire)] == [should, should]


def allowed(field: str, text: str, forbidden: str) -> str | None:
    """The text, or None where it is refused, as it is exactly where it has one of these characters."""
    try:
        Event("", **{field: text})  # type: ignore[arg-type]
    except InvalidEvent:
        assert any(character in forbidden for character in text)
        return None
    assert not any(character in forbidden for character in text)
    return text
