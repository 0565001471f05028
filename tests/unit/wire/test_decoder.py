"""Decoding a stream: the examples and rules of WHATWG HTML 9.2.6, and what is encoded comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse_emitters import Event
from flask_sse_emitters.testing import EventDecoder, decode

NOT_SURROGATES = st.characters(exclude_categories=["Cs"])
TEXT = st.text(NOT_SURROGATES.filter(lambda c: c != "\r"))
LINE = st.text(NOT_SURROGATES.filter(lambda c: c not in "\r\n"), min_size=1).filter(lambda name: name != "message")
IDS = st.text(NOT_SURROGATES.filter(lambda c: c not in "\r\n\0"))
EVENTS = st.builds(Event, TEXT, event=st.none() | LINE, id=st.none() | IDS)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        # The examples of the standard, in its order.
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("YHOO\n+2\n10")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [Event("first event", id="1"), Event("second event", id=""), Event(" third event", id="")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [Event(""), Event("\n")]),
        (b"data:test\n\ndata: test\n\n", [Event("test"), Event("test")]),
        # Its rules.
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


@given(EVENTS, st.none() | st.integers(min_value=0), st.none() | st.text(NOT_SURROGATES))
def test_decoder_returns_the_event_that_was_encoded(event: Event, retry: int | None, comment: str | None) -> None:
    more = Event(event.data, event=event.event, id=event.id, retry=retry, comment=comment)
    assert decode(more.encode()) == [event]


@given(st.text(NOT_SURROGATES))
def test_event_data_cr_and_crlf_become_lf_alone(text: str) -> None:
    assert decode(Event(text).encode())[0].data == text.replace("\r\n", "\n").replace("\r", "\n")


def test_decoder_result_is_independent_of_a_cut_in_a_line_end() -> None:
    stream = "\ufeffdata: é\r\ndata: b\r\r\nid: 1\ndata: c\n\ndata: d\r\n\r\n".encode()
    for cut in range(len(stream)):
        decoder = EventDecoder()
        assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == decode(stream)
