"""Identities: which texts can be one, what equals one, and who has which."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from werkzeug.local import LocalProxy

from flask_sse_emitters.access import Grant
from tests.support.board import Board, by_header, texts
from tests.support.identities import ADMINS, TEXT
from tests.support.waiting import until


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


@pytest.mark.parametrize("number", [7, True, 0.5, UUID(int=7), b"7", LocalProxy(lambda: None)], ids=repr)
def test_identity_that_is_no_str_is_rejected(number: Any) -> None:
    sse = Board(by_header).sse
    for call in (sse.disconnect, sse.recheck, sse.private, Grant, lambda user: sse.publish_to(user, "x")):
        with pytest.raises(TypeError, match="an identity is a str"):
            call(number)


@pytest.mark.parametrize("identity", ["", "x" * 501, "\ud800"])
def test_identity_that_is_invalid_is_rejected(identity: str) -> None:
    sse = Board(None).sse
    for call in (sse.private, sse.disconnect, sse.recheck, lambda user: sse.publish_to(user, "x")):
        with pytest.raises(ValueError, match="identity"):
            call(identity)


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
