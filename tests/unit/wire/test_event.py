"""Events as they are written, at once or in steps: WHATWG HTML 9.2.5, and what must be rejected."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from werkzeug.local import LocalProxy

from flask_sse_emitters import Event, EventBuilder, InvalidEvent, SseEmitter
from flask_sse_emitters.testing import decode


class Colour(enum.StrEnum):
    RED = "red"


class Shout(str, enum.Enum):  # noqa: UP042 - formats otherwise than its text
    HEY = "hey"


def test_event_is_encoded_field_by_field_and_ends_with_a_blank_line() -> None:
    event = Event("payload", event=Shout.HEY, id=Colour.RED, retry=0, comment="why\r\n\nnot")
    assert event.encode() == b": why\n: \n: not\nid: red\nevent: hey\nretry: 0\ndata: payload\n\n"


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        ("", b"data: \n\n"),
        ("a\nb", b"data: a\ndata: b\n\n"),
        ("a\r\nb\rc", b"data: a\ndata: b\ndata: c\n\n"),
        ("trailing\n", b"data: trailing\ndata: \n\n"),
        (" leading", b"data:  leading\n\n"),
        ("\u2028\u2029\x85\x0b\x0c\x1c", "data: \u2028\u2029\x85\x0b\x0c\x1c\n\n".encode()),
        ("\0\ufeff", "data: \0\ufeff\n\n".encode()),
        (0, b"data: 0\n\n"),
        (False, b"data: false\n\n"),
        ([], b"data: []\n\n"),
        ({"a": "é"}, b'data: {"a": "\\u00e9"}\n\n'),
        (Shout.HEY, b"data: hey\n\n"),
        (Colour.RED, b"data: red\n\n"),
        (None, b"\n"),
    ],
)
def test_event_data_keeps_its_text_and_falsy_values(data: Any, wire: bytes) -> None:
    assert Event(data).encode() == wire


def test_event_fields_of_a_werkzeug_proxy_are_its_object() -> None:
    text, number = LocalProxy(lambda: Shout.HEY), LocalProxy(lambda: 7)
    event = Event(text, event=text, id=number, retry=number, comment=text)  # type: ignore[arg-type]
    assert event.encode() == b": hey\nid: 7\nevent: hey\nretry: 7\ndata: hey\n\n"


def test_event_json_over_several_lines_stays_one_event() -> None:
    wire = Event({"a": 1, "b": 2}).encode(lambda data: json.dumps(data, indent=2).encode())
    assert json.loads(decode(wire)[0].data) == {"a": 1, "b": 2}


def test_event_is_an_immutable_value() -> None:
    event = Event("x", id="1")
    assert event == Event("x", id="1")
    assert hash(event) == hash(Event("x", id="1"))
    with pytest.raises(AttributeError):
        event.data = "y"  # type: ignore[misc]
    with pytest.raises(TypeError):
        hash(Event({"not": "hashable"}))


@pytest.mark.parametrize(
    ("text", "event"),
    [
        (b"id: 7\nevent: tick\nretry: 5\ndata: {}\n\n", Event("{}", event="tick", id="7", retry=5)),
        ("data: \u00e9\r\ndata: b\rdata:  c", Event("\u00e9\nb\n c")),
        ("data\ndata:\n\n\n", Event("\n")),
        (": why\n:not\n", Event(comment="why\nnot")),
        ("id: 1\nid: 2\nid: a\0b\nevent: a\nevent: b\ndata: x", Event("x", event="b", id="2")),
        ("retry: 7\nretry: -1\nretry: 1.5\nretry: \u0663\n", Event(retry=7)),
        ("colour: red\nDATA: no\ndata: a:b\n", Event("a:b")),
        ("\n", Event()),
    ],
)
def test_event_parse_reads_lines_as_the_standard_says(text: str | bytes, event: Event) -> None:
    assert Event.parse(text) == event
    assert Event.parse(event.encode()) == event, "and back"


def test_event_parse_refuses_two_events_and_bytes_that_are_no_utf_8() -> None:
    with pytest.raises(InvalidEvent, match=r"parse\(\) takes one event, and a blank line begins another: 'data: a"):
        Event.parse("data: a\n\ndata: b\n\n")
    with pytest.raises(InvalidEvent, match="UTF-8"):
        Event.parse(b"data: \xff\n\n")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"event": "a\nb"}, r"event must not contain '\\n': 'a\\nb'"),
        ({"event": "a\rb"}, r"event must not contain '\\r'"),
        ({"event": 5}, "event must be a str, not 5"),
        ({"event": b"x"}, "event must be a str, not b'x'"),
        ({"id": "a\nb"}, r"id must not contain '\\n'"),
        ({"id": "a\rb"}, r"id must not contain '\\r'"),
        ({"id": "a\0b"}, r"id must not contain '\\x00'"),
        ({"id": True}, "id must be a str or an int, not True"),
        ({"id": 10**1000}, "id is an int of more than 1,000 digits"),
        ({"retry": 10**1000}, "retry is an int of more than 1,000 digits"),
        ({"id": 1.5}, "id must be a str or an int, not 1.5"),
        ({"retry": -1}, "retry must be an int of milliseconds, 0 or more, not -1"),
        ({"retry": True}, "retry must be an int .* not True"),
        ({"retry": 1.5}, "retry must be an int .* not 1.5"),
        ({"retry": "10"}, "retry must be an int .* not '10'"),
        ({"comment": 1}, "comment must be a str, not 1"),
        ({"data": "\ud800"}, "data holds a lone surrogate"),
        ({"event": "\udfff"}, "event holds a lone surrogate"),
        ({"id": "\ud800"}, "id holds a lone surrogate"),
        ({"comment": "\ud800"}, "comment holds a lone surrogate"),
    ],
)
def test_event_field_that_cannot_be_encoded_is_rejected_at_construction(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidEvent, match=message):
        Event(**fields)


def test_event_error_shows_only_the_beginning_of_a_long_text() -> None:
    with pytest.raises(InvalidEvent) as caught:
        Event(event="x" * 100_000 + "\n")
    assert len(str(caught.value)) < 200


def test_event_data_that_is_no_json_is_rejected_with_advice() -> None:
    with pytest.raises(InvalidEvent, match=r"data of type bytes cannot be made JSON .* send a str instead"):
        Event(b"raw").encode()
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(InvalidEvent, match="data of type list"):
        Event(nested).encode()
    with pytest.raises(InvalidEvent, match="the JSON made of data holds a lone surrogate"):
        Event(["\ud800"]).encode(lambda data: json.dumps(data, ensure_ascii=False))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_event_data_with_a_number_not_finite_is_rejected(number: float) -> None:
    shown = json.dumps(number)
    for data in (number, [1, number], {"a": [{"b": number}, 'x"']}, {'NaN"\\': number, "b": "Infinity"}):
        for dumps in (json.dumps, partial(json.dumps, indent=1), partial(json.dumps, separators=(",", ":"))):
            with pytest.raises(InvalidEvent, match=f"data holds {shown}, which is not valid JSON"):
                Event(data).encode(dumps)
        with pytest.raises(InvalidEvent, match=shown):
            Event(data).encode(lambda data: json.dumps(data).encode())
    with pytest.raises(InvalidEvent, match=shown):
        EventBuilder().data("text").data(number).build().encode()


def test_event_data_text_that_names_such_a_number_is_sent() -> None:
    for data in ("NaN", ["NaN", "-Infinity"], {"Infinity": 'a "NaN": NaN, \\'}, {math.nan: '\\"NaN'}, "[NaN]"):
        encoded = Event(data).encode()
        assert encoded == f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def test_event_data_number_not_finite_is_sent_as_the_provider_writes_it() -> None:
    assert Event([math.nan]).encode(lambda _: "[null]") == b"data: [null]\n\n"
    assert Event([math.nan]).encode(lambda _: "aNaN/Infinity=") == b"data: aNaN/Infinity=\n\n", "a form of its own"


def test_builder_builds_equal_events() -> None:
    builder = SseEmitter.event().id(7).name("update").data("a").comment("x").retry(5)
    assert builder.build() == builder.build() == Event("a", event="update", id=7, retry=5, comment="x")
    builder.data("b").comment("y").name("n")
    assert builder.build() == Event("a\nb", event="n", id=7, retry=5, comment="x\ny"), "it can go on after a build"


def test_builder_takes_json_between_lines_of_text_that_may_end_with_a_cr() -> None:
    event = EventBuilder().data("a\r").data({"b": 1}).data(0).comment("c\r").comment("d").build()
    assert event.encode() == b': c\n: \n: d\ndata: a\ndata: \ndata: {"b": 1}\ndata: 0\n\n'


def test_builder_event_of_several_parts_is_unequal_to_a_tuple() -> None:
    lines, array = EventBuilder().data("a").data(1).build(), Event(("a", 1))
    assert lines.encode() != array.encode()
    assert lines != array
    assert array != lines
    assert len({lines, array}) == 2
    again = EventBuilder().data("a").data(1).build()
    assert lines == again
    assert hash(lines) == hash(again)
    assert hash(lines) != hash(array)


def test_builder_rejected_step_leaves_the_builder_unchanged() -> None:
    builder = EventBuilder().data("kept").name("kept").comment("kept")
    steps: list[Callable[[], object]] = [
        lambda: builder.id("\n"),
        lambda: builder.name("\n"),
        lambda: builder.retry(-1),
        lambda: builder.data("\ud800"),
        lambda: builder.comment(5),  # type: ignore[arg-type]
    ]
    for step in steps:
        with pytest.raises(InvalidEvent):
            step()
    assert builder.build() == Event("kept", event="kept", comment="kept")
