"""A hundred awkward events and streams, and what every client should dispatch for each."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from flask_sse_emitters import Event, EventBuilder


class Dispatched(NamedTuple):
    """An event as a client dispatches it."""

    event: str
    id: str
    data: str


class Row(NamedTuple):
    """An awkward event that is published."""

    name: str
    event: Event
    expected: str | None  #: the expected data, or None for JSON, or if no event is expected
    by_hand: bool = False  #: sent to the channel's list, not published: it gets no id there

    @property
    def is_json(self) -> bool:
        return self.expected is None and self.event.data is not None


class Block(NamedTuple):
    """Awkward bytes, as another server might write them, and the events that they dispatch.

    Without an id of its own, a dispatched event has the last id before it, as the standard says.
    """

    name: str
    pieces: tuple[bytes, ...]  #: each is written separately
    dispatched: tuple[tuple[str, str | None, str], ...]


#: After each row comes an event of this name; its data is the number of the row.
MARK = "mark"

#: Bytes that need not be cut: marks, ids that a channel gives, and those between two HTTP chunks.
WHOLE = rb"(?:id: \w+-[0-9]+\n)?event: mark\ndata: \w+\n|id: \w+-[0-9]+\n|\r\n[0-9a-f]+\r\n"

#: Data of the last mark: the client ends.
END = "end"


def _row(name: str, data: Any = None, expected: str | None = None, *, by_hand: bool = False, **fields: Any) -> Row:
    event = data.build() if isinstance(data, EventBuilder) else Event(data, **fields)
    if expected is None and isinstance(event.data, str):
        expected = re.sub("\r\n|\r", "\n", event.data)
    return Row(name, event, expected, by_hand or event.id is not None)


#: The line ends of the standard, one or two of each.
LINE_ENDS = ["\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n", "\n\r", "\r\n\r", "\r\r\n", "\n\r\n"]

#: Data, by name where a client deviates on it.
_NAMED_DATA = {
    "BOM": "\ufeff",
    "leading BOM": "\ufeffx",
    "two BOMs": "\ufeff\ufeffx",
    "BOM on each line": "\ufeffa\n\ufeffb",
    "a thousand empty lines": "\n" * 1000,
}
_DATA = [
    *("", " ", "  ", "   x", "x   ", "\t", "\tx\t", "\xa0x\xa0"),
    *(":", ": x", "a:b: c::", "data: x", "id: 5", "event: x", "retry: 1", ": x\n:\n:y"),
    *("id: 5\nevent: x\ndata: y\n\ndata: z\n\n", "5\r\nhello\r\n0\r\n\r\n"),
    # Controls, and what some take for a line end.
    *("\0", "a\0b\0", "".join(map(chr, range(32))) + "\x7f", "".join(map(chr, range(0x80, 0xA0)))),
    *("a\u2028b\u2029c", "\u2028x\u2028", "a\x85b", "a\x0bb\x0cc", "a\x1cb\x1db\x1ec\x1f"),
    # What encodings, normalization and the direction of text may change.
    *("🦄", "👩‍👩‍👧‍👦🏳️‍🌈", "é€🦄" * 7, "e\u0301 \u1e9b\u0323", "\u202eabc\u202c \u05d0\u05d1"),
    *("a\ufeffb", "\ufffe\uffff\U0010ffff", "\ufffd", "\u0a0d\u0d0a\u0d00", "Ã©"),
    # What escapes of other formats may change.
    *('"\\n\\r\\u0000\\', "%0A%0D+%2B", "<script>alert(1)</script>&amp;", "null"),
    *("y" * 65_536, "x" * 2**20, "€" * 350_000, "x\n" * 10_000),
]

_JSON: list[Any] = [
    *(0, -1, False, True, 0.1, 1e300, 2**63, [], {}, [None], list(range(20))),
    {"a": [{"b": {"c": [1, [2, [3]]]}}], "": " "},
    {"text": "a\r\nb\rc\nd", "\n": "\r"},
    {"\u2028": "\0\ufeff\x85🦄", "é": "\\ud800"},
]

#: Names that a browser, JavaScript or a parser may take for something else.
_NAMES = [
    *("message", "", "Message", "open", "error", "constructor", "__proto__", "data", "event: x"),
    *("  two words ", "a:b: c", "\ta\t", "a\0b", "a\u2028b\x85c", "🦄é", "n" * 10_000),
]

_IDS = [0, -5, 10**99, "  x ", ":", "id: 5", "\t", "a\u2028b", "🦄é", "i" * 5_000]

#: The published events, in order.
PUBLISHED = [
    _row("by its defaults", "x"),
    *(_row(f"data: {name}", text) for name, text in _NAMED_DATA.items()),
    *(_row(f"data: {text!r:.50}", text) for text in _DATA),
    *(_row(f"data: {end!r} amid", f"a{end}b") for end in LINE_ENDS),
    *(_row(f"data: {end!r} at its end", f"a{end}") for end in LINE_ENDS),
    *(_row(f"data: {end!r} at its beginning", f"{end}a") for end in LINE_ENDS),
    _row("data: CR and LF in two steps", EventBuilder().data("a\r").data("\nb"), "a\n\n\nb"),
    _row("data: text and JSON in steps", EventBuilder().data("a").data([1]).data(""), "a\n[1]\n"),
    *(_row(f"JSON: {value!r}", value) for value in _JSON),
    *(_row(f"name: {name!r:.50}", "x", event=name) for name in _NAMES),
    _row("name: with BOM", "x", event="\ufeffa"),
    _row("name: without data", event="lost"),
    _row("name: not the one of a lost event", "x"),
    *(_row(f"id: {value!r:.50}", "x", id=value) for value in _IDS),
    _row("id: empty", "x", id=""),
    _row("id: BOM", "x", id="\ufeffx"),
    _row("id: none", "x", by_hand=True),
    _row("id: without data", id="bare"),
    _row("comment: alone", comment="x"),
    _row("comment: empty", comment=""),
    _row("comment: of all line ends", comment="a\nb\rc\r\n\r\rd\n"),
    _row("comment: that looks like fields", comment="\ndata: no\nid: no\n\ndata: no\n\n"),
    _row("comment: odd text", comment="\0\ufeff\u2028\x85🦄"),
    _row("comment: of 20,000", comment="c" * 20_000),
    _row("comment: with data", "x", comment="y"),
    _row("retry: alone", retry=100),
    _row("retry: zero", "x", retry=0),
    _row("retry: huge", "x", retry=2**31),
    _row("retry: as before", "x", retry=100),
    _row("all fields", "a\nb", event="all", retry=100, comment="c\nd"),
]

_OF_THE_WIRE: list[tuple[str, tuple[bytes, ...] | bytes, list[tuple[str, str | None, str]] | str]] = [
    ("BOM at the beginning", (b"\xef", b"\xbb", b"\xbfdata: a\n\n"), "a"),
    ("only the first BOM is none", b"\xef\xbb\xbfdata: a\ndata: b\n\n", "b"),
    ("CR", b"data: a\rdata: b\r\r", "a\nb"),
    ("CRLF", b"data: a\r\ndata: b\r\n\r\n", "a\nb"),
    ("all line ends", b"data: a\rdata: b\ndata: c\r\ndata: d\n\r", "a\nb\nc\nd"),
    ("CR and LF in two pieces", (b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n"), "a\nb"),
    ("CR at the end of each piece", (b"data: a\r", b"data: b\r", b"\r"), "a\nb"),
    ("LF after CRLF in pieces", (b"data: a\r", b"\n", b"\n"), "a"),
    ("CR, CR, LF", (b"data: a\r", b"\r", b"\n"), "a"),
    ("a line end alone in a piece", (b"data: a", b"\n", b"data: b", b"\r", b"data: c", b"\r\n", b"\n"), "a\nb\nc"),
    ("many blank lines", b"\n\n\r\r\n\r\n\n\rdata: a\n\n\n\n", "a"),
    ("no space after the colon", b"data:a\ndata: b\ndata:  c\n\n", "a\nb\n c"),
    ("a tab after the colon", b"data:\ta\n\n", "\ta"),
    ("a field without a colon", b"data\n\n", ""),
    ("fields without a colon", b"data\ndata\n\n", "\n"),
    ("a field without a colon amid", b"data: a\ndata\ndata: b\n\n", "a\n\nb"),
    ("empty lines of data", b"data:\ndata:\ndata: a\n\n", "\n\na"),
    ("a space before the field", b" data: a\ndata: b\n\n", "b"),
    ("a space after the field", b"data : a\ndata: b\n\n", "b"),
    ("fields in capitals", b"DATA: a\nData: b\ndata: c\n\n", "c"),
    ("fields that are longer or shorter", b"dat: a\ndatas: b\ndata: c\nd\n\n", "c"),
    ("unknown fields", b"foo: a\nbar\n__proto__: b\nheartbeat: c\ndata: d\n\n", "d"),
    ("comments amid", b"data: a\n: x\ndata: b\n:\n:data: c\n\n", "a\nb"),
    ("the last name holds", b"event: a\nevent: b\ndata: x\n\n", [("b", None, "x")]),
    ("an empty name takes it back", b"event: a\nevent\ndata: x\n\n", "x"),
    ("a name without data is forgotten", b"event: lost\n\ndata: x\n\n", "x"),
    ("a name after the data", b"data: x\nevent: late\n\n", [("late", None, "x")]),
    ("an id", b"id: 1\ndata: x\n\n", [("message", "1", "x")]),
    ("an id with NUL is none", b"id: 2\0\ndata: x\n\n", "x"),
    ("an id alone", b"id: 3\n\ndata: x\n\n", [("message", "3", "x")]),
    ("an id without a value", b"id\ndata: x\n\n", [("message", "", "x")]),
    ("an id after the data", b"data: x\nid: 4\n\n", [("message", "4", "x")]),
    ("retry that is no number", b"retry: 1x\nretry: -1\nretry:\nretry: \xd9\xa1\nretry: 1.5\ndata: x\n\n", "x"),
    ("retry of many digits", b"retry: %b\ndata: x\n\nretry: 100\n\n" % (b"9" * 400), "x"),
    ("UTF-8 that breaks off", b"data: \xe2\x82\ndata: \xf0\x9f\xa6\n\n", "\ufffd\n\ufffd"),
    ("bytes that are no UTF-8", b"data: \xff\xfe\xc0\x80\xed\xa0\x80|\n\n", "\ufffd" * 7 + "|"),
    ("emoji in pieces", (b"data: \xf0", b"\x9f", b"\xa6", b"\x84\n", b"\n"), "🦄"),
    ("NUL between fields", b"\0data: a\ndata\0: b\ndata: c\n\n", "c"),
    ("only comments", b": a\n\n:b\r\r:\r\n\r\n", []),
]

#: What another server writes, in order.
WRITTEN = [
    Block(
        f"wire: {name}",
        pieces if isinstance(pieces, tuple) else (pieces,),
        (("message", None, dispatched),) if isinstance(dispatched, str) else tuple(dispatched),
    )
    for name, pieces, dispatched in _OF_THE_WIRE
]

#: The names of all events that are sent: an ``EventSource`` dispatches no others.
EVENT_NAMES = sorted(
    {row.event.event or "message" for row in PUBLISHED}
    | {name for block in WRITTEN for name, _, _ in block.dispatched}
    | {"message", MARK}
)


def mark_bytes(number: int | str) -> bytes:
    """Return a mark as bytes, without an id."""
    return b"event: %b\ndata: %b\n\n" % (MARK.encode(), str(number).encode())
