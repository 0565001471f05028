"""Events on the wire: WHATWG HTML 9.2.5 and 9.2.6, and the rules for what must be rejected."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import httpx_sse
import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.local import LocalProxy

from flask_sse_emitters import Event, EventBuilder, InvalidEvent, SseEmitter
from flask_sse_emitters.testing import EventDecoder, decode

NOT_SURROGATES = st.characters(exclude_categories=["Cs"])
TEXT = st.text(NOT_SURROGATES.filter(lambda c: c != "\r"))
LINE = st.text(NOT_SURROGATES.filter(lambda c: c not in "\r\n"), min_size=1).filter(lambda name: name != "message")
IDS = st.text(NOT_SURROGATES.filter(lambda c: c not in "\r\n\0"))
EVENTS = st.builds(Event, TEXT, event=st.none() | LINE, id=st.none() | IDS)


class Colour(enum.StrEnum):
    RED = "red"


class Shout(str, enum.Enum):  # noqa: UP042 - formats otherwise than its text
    HEY = "hey"


def test_event_is_encoded_field_by_field_and_ends_with_a_blank_line() -> None:
    event = Event("payload", event="update", id=7, retry=0, comment="why")
    assert event.encode() == b": why\nid: 7\nevent: update\nretry: 0\ndata: payload\n\n"


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


def test_event_name_or_id_of_a_str_enum_is_its_value() -> None:
    assert Event("x", event=Shout.HEY, id=Colour.RED).encode() == b"id: red\nevent: hey\ndata: x\n\n"


def test_event_fields_of_a_werkzeug_proxy_are_its_object() -> None:
    text, number = LocalProxy(lambda: Shout.HEY), LocalProxy(lambda: 7)
    event = Event(text, event=text, id=number, retry=number, comment=text)  # type: ignore[arg-type]
    assert event.encode() == b": hey\nid: 7\nevent: hey\nretry: 7\ndata: hey\n\n"


def test_event_json_over_several_lines_stays_one_event() -> None:
    event = Event({"a": 1, "b": 2})
    wire = event.encode(lambda data: json.dumps(data, indent=2))
    assert json.loads(decode(wire)[0].data) == {"a": 1, "b": 2}


def test_event_dumps_can_return_bytes() -> None:
    assert Event({"a": 1}).encode(lambda _: b"[1]") == b"data: [1]\n\n"


def test_event_comment_can_have_newlines() -> None:
    assert Event(comment="a\r\n\nb").encode() == b": a\n: \n: b\n\n"


def test_event_is_an_immutable_value() -> None:
    event = Event("x", id="1")
    assert event == Event("x", id="1")
    assert hash(event) == hash(Event("x", id="1"))
    with pytest.raises(AttributeError):
        event.data = "y"  # type: ignore[misc]
    with pytest.raises(TypeError):
        hash(Event({"not": "hashable"}))


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
    builder = SseEmitter.event().id(7).name("update").data("a").data("b").comment("x").comment("y").retry(5)
    assert builder.build() == Event("a\nb", event="update", id=7, retry=5, comment="x\ny")
    assert builder.build() == builder.build()


def test_builder_cr_at_the_end_of_a_part_is_a_line_end() -> None:
    event = EventBuilder().data("a\r").data("b").comment("c\r").comment("d").build()
    assert event.encode() == b": c\n: \n: d\ndata: a\ndata: \ndata: b\n\n"


def test_builder_takes_json_between_lines_of_text() -> None:
    event = EventBuilder().data("a").data({"b": 1}).data(0).build()
    assert event.encode() == b'data: a\ndata: {"b": 1}\ndata: 0\n\n'


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


def test_builder_can_go_on_after_a_build() -> None:
    builder = EventBuilder().data("a")
    first = builder.build()
    builder.data("b").name("n")
    assert first == Event("a")
    assert builder.build() == Event("a\nb", event="n")


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


# The examples of WHATWG HTML 9.2.6, in its order.


def test_standard_example_stock_ticker() -> None:
    assert decode(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [Event("YHOO\n+2\n10")]


def test_standard_example_four_blocks() -> None:
    stream = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
    assert decode(stream) == [Event("first event", id="1"), Event("second event", id=""), Event(" third event", id="")]


def test_standard_example_empty_data_and_an_unfinished_block() -> None:
    assert decode(b"data\n\ndata\ndata\n\ndata:") == [Event(""), Event("\n")]


def test_standard_example_a_space_after_the_colon_is_ignored() -> None:
    assert decode(b"data:test\n\ndata: test\n\n") == [Event("test"), Event("test")]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"\xef\xbb\xbfdata: a\n\n", [Event("a")]),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\n", [Event("a"), Event("b"), Event("c")]),
        (b"event: message\ndata: a\n\nevent:\ndata: b\n\n", [Event("a"), Event("b")]),
        (b"event: lost\n\ndata: a\n\n", [Event("a")]),
        (b"id: 1\n\ndata: a\n\nid: 2\0\ndata: b\n\n", [Event("a", id="1"), Event("b", id="1")]),
        (b"retry: 10\n\n: only a comment\n\n", []),
        (b"unknown: x\ndata: a\n:\n\n", [Event("a")]),
        (b"data: \xff\n\n", [Event("\ufffd")]),
        (b"data: a\n", []),
    ],
)
def test_decoder_reads_as_a_browser_does(stream: bytes, events: list[Event]) -> None:
    assert decode(stream) == events


@given(EVENTS)
def test_decoder_returns_the_event_that_was_encoded(event: Event) -> None:
    assert decode(event.encode()) == [event]


@given(st.text(NOT_SURROGATES))
def test_event_data_cr_and_crlf_become_lf_alone(text: str) -> None:
    assert decode(Event(text).encode())[0].data == text.replace("\r\n", "\n").replace("\r", "\n")


@given(EVENTS, st.integers(min_value=0), st.text(NOT_SURROGATES))
def test_decoder_comments_and_retry_change_no_event(event: Event, retry: int, comment: str) -> None:
    more = Event(event.data, event=event.event, id=event.id, retry=retry, comment=comment)
    assert decode(more.encode()) == [event]


@given(st.lists(EVENTS, max_size=5), st.data())
def test_decoder_accepts_a_stream_cut_anywhere(events: list[Event], data: st.DataObject) -> None:
    stream = b": begin\n\n" + b"".join(event.encode() for event in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder, got = EventDecoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += decoder.feed(stream[start:end])
    assert got == decode(stream)


@given(st.binary(), st.data())
def test_decoder_result_is_independent_of_cuts_for_any_bytes(stream: bytes, data: st.DataObject) -> None:
    stream = stream.replace(b"\x80", b"\r").replace(b"\x81", b"\n").replace(b"\x82", b"data:")
    cut = data.draw(st.integers(0, len(stream)))
    decoder = EventDecoder()
    assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == decode(stream)


def test_decoder_crlf_that_is_cut_is_one_line_end() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\r") + decoder.feed(b"\ndata: b\r\n\r\n") == [Event("a\nb")]


@given(st.lists(EVENTS, max_size=4))
def test_event_encoding_is_read_alike_by_httpx_sse(events: list[Event]) -> None:
    stream = b"".join(event.encode() for event in events)
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=stream)
    read = [(sse.data, sse.event, sse.id) for sse in httpx_sse.EventSource(response).iter_sse()]
    ids, last = [], ""
    for event in events:
        last = last if event.id is None else str(event.id)
        ids.append(last)
    assert read == [(e.data, e.event or "message", last_id) for e, last_id in zip(events, ids, strict=True)]
