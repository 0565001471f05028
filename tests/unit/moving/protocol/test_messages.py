"""The messages by which streams move: each comes back as it was, and nothing else passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flask_sse_emitters.config.settings import Settings
from flask_sse_emitters.moving.protocol.messages import (
    MAX_STREAMS,
    VERSION,
    Answer,
    Hello,
    Offer,
    OfferBuilder,
    Prepare,
    Prepared,
    Refusal,
    Welcome,
    decode,
    encode,
)
from flask_sse_emitters.moving.protocol.stream_record import ReaderRecord, StreamRecord
from flask_sse_emitters.moving.protocol.terms import Terms

Record = Callable[..., StreamRecord]

TERMS = Terms.of("shop", "1.0", Settings(cors_origins=("https://a.example",)))

FULL = {
    "channels": (("orders", "x7Kq2-41"), ("뉴스", "")),
    "lists": ("chart",),
    "is_chunked": False,
    "rest": "€ half of a character: ".encode() + b"\xe2\x82",
    "lifetime_part": 0.93,
    "ends_by": 1_800_000_000.25,
    "address": "2001:db8::1",
    "reader": ReaderRecord(identities=("ann",), channels=("~ann",), asked=("~",), request=b"\x00\xff"),
    "own": {"timeout": 60.0, "end": "cut", "retry": None},
    "attributes": {"room": [1, {"a": "b"}]},
}


@pytest.mark.parametrize(
    "message",
    [
        Hello(VERSION, TERMS),
        Welcome(),
        Refusal("settings", "why"),
        Prepare(3, ("orders", "뉴스")),
        Prepared(3),
        Answer(3, {0: "limit", 249: "history"}),
    ],
    ids=lambda message: type(message).__name__,
)
def test_message_of_each_type_is_decoded_as_it_was(message: Any) -> None:
    assert decode(encode(message)) == message


def test_offer_brings_all_of_a_stream_as_it_was(record: Record) -> None:
    builder = OfferBuilder(7, 10_000)
    assert builder.add(record(**FULL))
    assert builder.add(record())
    assert decode(builder.encode()) == Offer(7, (record(**FULL), record()))


def test_offer_can_be_read_by_a_person(record: Record) -> None:
    builder = OfferBuilder(7, 10_000)
    builder.add(record(channels=(("orders", "x7Kq2-41"),), rest=b"data: 1\n\n"))
    found = json.loads(builder.encode())
    assert (found["type"], found["batch"]) == ("offer", 7)
    assert found["streams"][0]["channels"] == [["orders", "x7Kq2-41"]]
    assert found["streams"][0]["rest"] == "data: 1\n\n"


def test_offer_takes_so_many_streams_and_bytes_and_no_more(record: Record) -> None:
    many = OfferBuilder(1, 1_000_000)
    assert [many.add(record()) for _ in range(MAX_STREAMS + 1)] == [True] * MAX_STREAMS + [False]
    few = OfferBuilder(1, 2_000)
    while few.add(record(rest=b"x" * 100)):
        pass
    assert 1 < len(few) < 20
    assert 1_000 < len(few.encode()) <= 2_000
    none = OfferBuilder(1, 2_000)
    assert not none.add(record(rest=b"x" * 2_000))
    assert len(none) == 0


@pytest.mark.parametrize("value", [object(), float("nan"), {"set"}])
def test_offer_of_what_json_cannot_have_is_an_error_and_adds_nothing(record: Record, value: Any) -> None:
    builder = OfferBuilder(1, 2_000)
    with pytest.raises(ValueError, match="JSON"):
        builder.add(record(attributes={"room": value}))
    assert len(builder) == 0


def test_hello_of_another_version_is_read_whatever_else_it_has() -> None:
    packet = b'{"type": "hello", "version": 2, "terms": "others by then"}'
    assert decode(packet) == Hello(2, None)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"type": []}',
        b'{"type": "farewell"}',
        b'{"type": "answer", "batch": true, "refused": {}}',
        b'{"type": "hello", "version": 1, "terms": {"app": 1}}',
        b'{"type": "refusal", "reason": "mood", "detail": ""}',
        b'{"type": "answer", "batch": 1, "refused": {"first": "limit"}}',
        b'{"type": "answer", "batch": 1, "refused": {"0": ["limit"]}}',
        b'{"type": "offer", "batch": 1, "streams": []}',
        b'{"type": "offer", "batch": 1, "streams": [1]}',
    ],
    ids=lambda packet: packet[:60].decode(errors="replace"),
)
def test_message_that_is_none_of_the_protocol_is_an_error(packet: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of json, or of the protocol
        decode(packet)


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": [["orders"]]},
        {"channels": [["orders", 1]]},
        {"lists": "chart"},
        {"is_chunked": 1},
        {"rest": "\ud800"},
        {"born": None},
        {"born": 10**400},
        {"written": float("inf")},
        {"reader": {"identities": ["ann"], "channels": [], "asked": [], "request": "no base64"}},
        {"own": None},
    ],
    ids=str,
)
def test_offer_of_a_stream_with_a_wrong_value_is_an_error(record: Record, wrong: dict[str, Any]) -> None:
    stream = {**record().as_json(), **wrong}
    with pytest.raises(ValueError):  # noqa: PT011 - of json, or of the protocol
        decode(json.dumps({"type": "offer", "batch": 1, "streams": [stream]}).encode())


def test_terms_that_are_equal_differ_in_nothing_after_the_way() -> None:
    hello = decode(encode(Hello(VERSION, TERMS)))
    assert isinstance(hello, Hello)
    assert hello.terms is not None
    assert TERMS.difference(hello.terms) is None


@pytest.mark.parametrize(
    ("theirs", "reason", "detail"),
    [
        (Terms.of("other", "1.0", Settings()), "app", "app is 'other' there, and 'shop' here"),
        (Terms.of("shop", "2.0", Settings()), "package", "package is '2.0' there, and '1.0' here"),
        (
            Terms.of("shop", "1.0", Settings(broker_url="redis://:pass@h")),
            "broker",
            "SSE_BROKER_URL or SSE_BROKER_PREF",
        ),
        (
            Terms.of("shop", "1.0", Settings(broker_prefix="b")),
            "broker",
            "SSE_BROKER_URL or SSE_BROKER_PREFIX is anoth",
        ),
        (Terms.of("shop", "1.0", Settings(timeout=60.0)), "settings", "SSE_TIMEOUT is 60.0 there, and 1800.0 here"),
    ],
    ids=["app", "package", "url", "prefix", "settings"],
)
def test_terms_that_differ_say_in_what(theirs: Terms, reason: str, detail: str) -> None:
    found = Terms.of("shop", "1.0", Settings()).difference(theirs)
    assert found is not None
    assert found[0] == reason
    assert found[1].startswith(detail)


def test_terms_hold_no_password_of_the_broker() -> None:
    terms = Terms.of("shop", "1.0", Settings(broker_url="redis://:opensesame@host"))
    assert b"opensesame" not in encode(Hello(VERSION, terms))
