"""Private channels: ``~`` is each reader's own, and ``publish_to`` reaches that reader alone."""

from __future__ import annotations

import pytest

from flask_sse_emitters import Event, InvalidChannel
from tests.support.board import Board, by_header, texts


def test_private_channel_without_a_rule_is_denied_and_asks_for_one(caplog: pytest.LogCaptureFixture) -> None:
    answer = Board(None, debug=True).get("/events/~")
    assert (answer.status_code, "sse.channel(" in answer.text) == (403, False)
    assert "say who reads, with @sse.authorizer" in answer.text
    assert "say who reads, with @sse.authorizer; this is logged once" in caplog.text


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


def test_private_channel_replays_missed_events_at_a_reconnect() -> None:
    board = Board(by_header)
    first, *_ = [board.sse.publish_to("ann", number) for number in range(3)]
    with board.open("~", user="ann", last=first) as stream:
        assert texts(stream.ready()) == ["1", "2"]


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


def test_private_channel_without_an_identity_is_denied() -> None:
    board = Board(lambda _: True, debug=True)
    answer = board.get("/events/~")
    assert answer.status_code == 403
    assert "have the authorizer return who that is" in answer.text


@pytest.mark.parametrize("name", ["~", "~ann", "~bob", "!revoked", "~~"])
def test_private_channel_names_are_rejected_as_channel_names(name: str) -> None:
    board = Board(by_header)
    for call in (board.sse.channel, lambda channel: board.sse.publish(channel, "x")):
        with pytest.raises(InvalidChannel, match="publish_to" if name.startswith("~") else "ASCII"):
            call(name)
    if name != "~":
        assert board.get(f"/events?channel={name}", User="bob").status_code == 400
    assert board.client.post(f"/events/{name}", json=1).status_code == 405
