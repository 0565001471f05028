"""Where clients that strangers wrote do other than the standard says: what they tell instead, and why."""

from __future__ import annotations

from typing import NamedTuple

from .oracles_events import LINE_ENDS

#: In place of an id: the one that it should be.
RIGHT = None

#: In place of an id: the one before.
BEFORE = "\0before"

#: What a client tells: name, id, data.
Told = list[tuple[str, str | None, str]]


class Deviation(NamedTuple):
    """Of one client, of the version that the tests use."""

    client: str
    why: str
    told: dict[str, Told]  #: in place of what should be, by the name of the row


FETCH = "fetch-event-source"
HTTPX = "httpx-sse"

_NOTHING: Told = [("message", RIGHT, "")]
_BOTH_CALL_IT_AN_EVENT: dict[str, Told] = {
    "the greeting": _NOTHING * 2,
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
        "it tells of each blank line, also where nothing came before it, and does not say whether there were data",
        {
            **_BOTH_CALL_IT_AN_EVENT,
            "wire: many blank lines": [*_NOTHING * 7, ("message", RIGHT, "a"), *_NOTHING * 2],
        },
    ),
    Deviation(
        FETCH,
        "it decodes each line for itself, with a decoder that takes a BOM away",
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
        "it takes data that are empty so far for none, and then adds the next line without the line end before it",
        {
            **{f"data: {end!r} at its beginning": [("message", RIGHT, "a")] for end in LINE_ENDS},
            "data: a thousand empty lines": [("message", RIGHT, "")],
            "wire: empty lines of data": [("message", RIGHT, "a")],
        },
    ),
    Deviation(
        FETCH,
        "it passes over a line without a colon",
        {
            "wire: fields without a colon": [("message", RIGHT, "")],
            "wire: a field without a colon amid": [("message", RIGHT, "a\nb")],
            "wire: an empty name takes it back": [("a", RIGHT, "x")],
        },
    ),
    Deviation(
        FETCH,
        "it tells of an event's own id alone, and of an empty one as of none: who keeps the last one keeps it then too",
        {
            "id: empty": [("message", BEFORE, "x")],
            "wire: an id without a value": [("message", BEFORE, "x")],
        },
    ),
    Deviation(FETCH, "it takes an id with NUL", {"wire: an id with NUL is none": [("message", "2\0", "x")]}),
    Deviation(
        "event-source-polyfill",
        "it takes an id with NUL",
        {"wire: an id with NUL is none": [("message", "2\0", "x")]},
    ),
    Deviation(
        HTTPX,
        "it tells of a block without data as of an event, and does not say whether there were any",
        _BOTH_CALL_IT_AN_EVENT,
    ),
    Deviation(
        HTTPX,
        "it decodes with a decoder that leaves the BOM at the beginning, which the first field's name then begins with",
        {"wire: BOM at the beginning": []},
    ),
]
