"""Where third-party clients deviate from the standard: what they dispatch instead, and why."""

from __future__ import annotations

from typing import NamedTuple

from tests.support.awkward_events import LINE_ENDS

#: In place of an id: the expected one.
RIGHT = None

#: In place of an id: the previous one.
BEFORE = "\0before"

#: What a client dispatches: name, id, data.
DispatchedEvents = list[tuple[str, str | None, str]]


class Deviation(NamedTuple):
    """A deviation of one client, in the version that the tests use."""

    client: str
    why: str
    dispatched: dict[str, DispatchedEvents]  #: in place of the expected events, by name of the row


FETCH = "fetch-event-source"
HTTPX = "httpx-sse"

_NOTHING: DispatchedEvents = [("message", RIGHT, "")]
_EVENTS_WITHOUT_DATA: dict[str, DispatchedEvents] = {
    "the preamble": _NOTHING * 2,
    "name: without data": [("lost", RIGHT, "")],
    "id: without data": [("message", RIGHT, "")],
    "comment: alone": _NOTHING,
    "comment: empty": _NOTHING,
    "comment: of all line ends": _NOTHING,
    "comment: that looks like fields": _NOTHING,
    "comment: odd text": _NOTHING,
    "comment: of 20,000": _NOTHING,
    "retry: alone": _NOTHING,
    "wire: a name without data is forgotten": [("lost", RIGHT, ""), ("message", RIGHT, "x")],
    "wire: an id alone": [("message", RIGHT, ""), ("message", RIGHT, "x")],
    "wire: retry of many digits": [("message", RIGHT, "x"), ("message", RIGHT, "")],
    "wire: only comments": _NOTHING * 3,
}
DEVIATIONS = [
    Deviation(
        FETCH,
        "it dispatches at each blank line, even with nothing before it, and does not show whether there were data",
        {**_EVENTS_WITHOUT_DATA, "wire: many blank lines": [*_NOTHING * 7, ("message", RIGHT, "a"), *_NOTHING * 2]},
    ),
    Deviation(
        FETCH,
        "it decodes each line separately, with a decoder that removes a BOM",
        {
            "data: BOM": [("message", RIGHT, "")],
            "data: leading BOM": [("message", RIGHT, "x")],
            "data: two BOMs": [("message", RIGHT, "\ufeffx")],
            "data: BOM on each line": [("message", RIGHT, "a\nb")],
            "name: with BOM": [("a", RIGHT, "x")],
            "id: BOM": [("message", "x", "x")],
            "wire: only the first BOM is none": [("message", RIGHT, "a\nb")],
        },
    ),
    Deviation(
        FETCH,
        "it takes data that are empty so far for no data, and then adds the next line without a line end before it",
        {
            **{f"data: {end!r} at its beginning": [("message", RIGHT, "a")] for end in LINE_ENDS},
            "data: a thousand empty lines": [("message", RIGHT, "")],
            "wire: empty lines of data": [("message", RIGHT, "a")],
        },
    ),
    Deviation(
        FETCH,
        "it ignores a line without a colon",
        {
            "wire: fields without a colon": [("message", RIGHT, "")],
            "wire: a field without a colon amid": [("message", RIGHT, "a\nb")],
            "wire: an empty name takes it back": [("a", RIGHT, "x")],
        },
    ),
    Deviation(
        FETCH,
        "it passes on an event's own id alone, and an empty one as none: a user that keeps the last id then keeps it",
        {"id: empty": [("message", BEFORE, "x")], "wire: an id without a value": [("message", BEFORE, "x")]},
    ),
    Deviation(FETCH, "it accepts an id with NUL", {"wire: an id with NUL is none": [("message", "2\0", "x")]}),
    Deviation(
        "event-source-polyfill",
        "it accepts an id with NUL",
        {"wire: an id with NUL is none": [("message", "2\0", "x")]},
    ),
    Deviation(
        HTTPX,
        "it dispatches a block without data as an event, and does not show whether there were any",
        _EVENTS_WITHOUT_DATA,
    ),
    Deviation(
        HTTPX,
        "its decoder leaves the BOM at the beginning, so that the first field's name begins with it",
        {"wire: BOM at the beginning": []},
    ),
]
