"""Identities of readers, and ``~``, the private channel of each, which ``publish_to`` reaches."""

from __future__ import annotations

import enum
from typing import Any
from uuid import UUID

import pytest
from werkzeug.local import LocalProxy

from flask_sse_emitters import Event, InvalidChannel
from flask_sse_emitters.access import Grant, Rule
from tests.support.board import Board, by_header, texts
from tests.support.waiting import until

TEXT = "admin"


class Role(str, enum.Enum):  # noqa: UP042 - its format is not its text
    ADMIN = TEXT


class Shouting(str):
    """A str whose ``str()`` differs from its text."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


#: Identities that equal the text and are no plain str.
ADMINS: list[Any] = [Role.ADMIN, Shouting(TEXT), LocalProxy(lambda: TEXT), LocalProxy(lambda: Role.ADMIN)]


@pytest.mark.parametrize("admin", ADMINS, ids=lambda each: type(each).__name__)
def test_identity_of_any_str_type_is_compared_as_text(admin: Any) -> None:
    allowed = [True]
    board = Board(lambda _: admin if allowed else False)
    with board.open("~") as stream, board.open("a"):
        board.sse.publish_to(TEXT, "by text")
        board.sse.publish_to(admin, "by itself")
        assert texts(stream.ready()) == ["by text", "by itself"]
        assert board.sse.private(admin).subscribers() == 1
        own, other = board.emitters
        board.sse.disconnect(admin, channel=LocalProxy(lambda: "a"))  # type: ignore[arg-type]
        assert (own.is_open, other.is_open) == (True, False)
        allowed.clear()
        board.sse.recheck(admin)
        until(lambda: not own.is_open, "its end")
    with board.app.test_request_context():
        mine = board.sse.channel("a").subscribe(identity=admin)
        board.sse.disconnect(TEXT)
        assert not mine.is_open


@pytest.mark.parametrize(
    ("identity", "error"),
    [
        *((each, TypeError) for each in (7, True, 0.5, UUID(int=7), b"7", LocalProxy(lambda: None))),
        *((each, ValueError) for each in ("", "x" * 501, "\ud800")),
    ],
    ids=repr,
)
def test_identity_that_is_invalid_is_rejected(identity: Any, error: type[Exception]) -> None:
    sse = Board(by_header).sse
    for call in (sse.disconnect, sse.recheck, sse.private, lambda user: sse.publish_to(user, "x")):
        with pytest.raises(error, match="identity"):
            call(identity)
    if error is TypeError:  # a grant with an invalid text denies
        with pytest.raises(error, match="an identity is a str"):
            Grant(identity)


def test_identity_of_subscribe_that_is_invalid_is_rejected() -> None:
    """For a user who is not logged in, Flask-Login's get_id() is None: that must open nothing. It can be left out."""
    board = Board(None)
    for given in ({"identity": None}, {"identity": ""}, {"identity": 7}):
        with board.app.test_request_context(), pytest.raises((TypeError, ValueError), match="an identity"):
            board.sse.channel("a").subscribe(**given)
    with board.app.test_request_context():
        assert board.sse.channel("a").subscribe().is_open


def test_identity_of_a_private_channels_stream_is_its_reader() -> None:
    """Unless ``subscribe`` names another."""
    board = Board(by_header)
    with board.app.test_request_context():
        own = board.sse.private("ann").subscribe()
        watched = board.sse.private("ann").subscribe(identity="auditor")
        board.sse.disconnect("ann")
        assert (own.is_open, watched.is_open) == (False, True)
        board.sse.disconnect("auditor")
        assert not watched.is_open


@pytest.mark.parametrize(
    ("rule", "advice"),
    [(None, "say who reads, with @sse.authorizer"), (lambda _: True, "have the authorizer return who that is")],
)
def test_private_channel_without_an_identity_is_denied_with_advice(
    rule: Rule | None, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = Board(rule, debug=True).get("/events/~")
    assert (answer.status_code, "sse.channel(" in answer.text, advice in answer.text) == (403, False, True)
    assert (f"{advice}; this is logged once" in caplog.text) == (rule is None)


def test_private_channel_reaches_all_streams_of_its_reader_alone() -> None:
    board = Board(by_header)
    with (
        board.open("~", user="ann") as one,
        board.open("~", "news", user="ann") as two,
        board.open("~", user="bob") as bob,
    ):
        event_id = board.sse.publish_to("ann", {"n": 1}, event="hello")
        assert one.ready() == [Event('{"n": 1}', event="hello", id=event_id)]
        assert texts(two.ready()) == ['{"n": 1}']
        assert bob.ready() == []
        assert board.sse.private("ann").subscribers() == 2
    with board.open("~", user="bob", last=event_id) as bob:
        [gap] = bob.ready()
        assert (gap.event, "hello" in gap.data) == ("gap", False), "another reader's id shows none of their events"
    board.sse.publish_to("ann", "missed")
    with board.open("~", user="ann", last=event_id) as ann:
        assert texts(ann.ready()) == ["missed"]


@pytest.mark.parametrize(
    "identity", ["ann", "~", "!revoked", "a b", "안녕", "{x}", "a/../b", "x" * 500, "é" * 500, "a\nb"]
)
def test_private_channel_of_any_identity_is_its_own(identity: str) -> None:
    board = Board(lambda _: identity)
    with board.open("~") as stream:
        for other in ("ann", "~", "!revoked", "a b", "x" * 499, identity + "x" if len(identity) < 500 else "y" * 500):
            if other != identity:
                board.sse.publish_to(other, "not this")
        board.sse.publish_to(identity, "this")
        assert texts(stream.ready()) == ["this"]
        [name] = board.sse.stats()["channels"]
        assert name.isascii()
        assert name.isprintable()
        assert len(name) <= 200


@pytest.mark.parametrize("name", ["~", "~ann", "~bob", "!revoked", "~~"])
def test_private_channel_names_are_rejected_as_channel_names(name: str) -> None:
    board = Board(by_header)
    for call in (board.sse.channel, lambda channel: board.sse.publish(channel, "x")):
        with pytest.raises(InvalidChannel, match="publish_to" if name.startswith("~") else "ASCII"):
            call(name)
    if name != "~":
        assert board.get(f"/events?channel={name}", User="bob").status_code == 400
    assert board.client.post(f"/events/{name}", json=1).status_code == 405
