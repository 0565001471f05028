"""Where a client without an id begins, and positions to begin at."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flask_sse_emitters import Event, InvalidChannel
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board, texts
from tests.support.waiting import until


def begun(board: Board, since: str | None, last: str | None = None) -> list[str]:
    """Return what a client of the channel a gets at once, and of an event that follows."""
    query = "" if since is None else f"?since={since}"
    headers = {} if last is None else {"Last-Event-ID": last}
    with open_stream(board.client, f"/events/a{query}", headers=headers) as stream:
        events = stream.ready()
        board.publish("a", "next")
        return texts(events + stream.ready())


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (None, []),
        ("now", []),
        ("first", ["1", "2", "3", "4"]),
        ("last", ["4"]),
        ("last:1", ["4"]),
        ("last:3", ["2", "3", "4"]),
        ("last:99", ["1", "2", "3", "4"]),
        ("60s", ["1", "2", "3", "4"]),
        ("0s", []),
    ],
)
def test_channel_since_says_where_a_new_client_begins(board: Board, since: str | None, expected: list[str]) -> None:
    board.publish("a", 1, 2, 3, 4)
    assert begun(board, since) == [*expected, "next"]
    assert begun(board, since, last=board.sse.position("a")) == ["next"], "an id wins"


@pytest.mark.parametrize("since", ["first", "last:9", "60s"])
def test_channel_since_begins_at_the_oldest_kept_without_a_gap(board: Board, since: str) -> None:
    board.sse.channel("a", history=2)
    board.publish("a", 1, 2, 3, 4)
    assert begun(board, since) == ["3", "4", "next"]


@pytest.mark.parametrize("since", ["", "today", "last:0", "last:", "last:-1", "-1s", "60", "s", "1m", "Last", "first "])
def test_channel_since_that_is_malformed_is_a_400_and_a_value_error(board: Board, since: str) -> None:
    answer = board.client.get("/events/a", query_string={"since": since})
    assert (answer.status_code, answer.mimetype) == (400, "text/plain")
    assert "since must be 'now', 'first', 'last', 'last:20' or '60s'" in answer.text
    with pytest.raises(ValueError, match=re.escape("since must be 'now'")):
        board.sse.channel("a").subscribe(since=since)


def test_channel_since_of_a_view_begins_there(board: Board) -> None:
    @board.app.get("/mine")
    def mine() -> Any:
        return board.sse.channel("a").subscribe(since="last:2")

    board.publish("a", 1, 2, 3)
    with open_stream(board.client, "/mine") as stream:
        assert texts(stream.ready()) == ["2", "3"]


def test_channel_since_of_the_options_is_overruled_by_the_request(board: Board) -> None:
    board.sse.channels("*", since="last")
    board.publish("a", 1, 2, 3)
    assert begun(board, None) == ["3", "next"]
    assert begun(board, "now") == ["next"]
    assert begun(board, "last:2") == ["next", "next", "next"]


def test_channels_of_one_stream_begin_each_where_its_options_say(board: Board) -> None:
    board.sse.channels("job/*", since="first")
    for name in ("job/1", "a"):
        board.publish(name, 1, 2)
    with board.open("a", "job/1") as stream:
        assert texts(stream.ready()) == ["1", "2"]
        board.publish("a", "next")
        assert texts(stream.ready()) == ["next"]


@pytest.mark.parametrize("since", ["now", "last", "60s"])
def test_channel_since_does_not_matter_once_it_is_complete(board: Board, since: str) -> None:
    board.publish("a", 1, 2)
    board.sse.publish("a", 3, last=True)
    with open_stream(board.client, f"/events/a?since={since}") as stream:
        assert texts(stream.ready()) == ["1", "2", "3", ""]


def test_channel_since_first_gives_nothing_from_before_an_end(board: Board) -> None:
    board.publish("a", 1, 2)
    board.sse.channel("a").complete()
    board.publish("a", 3)
    for since in ("first", "last:9", "60s"):
        with open_stream(board.client, f"/events/a?since={since}") as stream:
            assert texts(stream.ready()) == ["3"]


def test_channel_since_seconds_leaves_out_what_is_older(board: Board) -> None:
    board.publish("a", "old")

    def fresh() -> list[str]:
        with open_stream(board.client, "/events/a?since=0.2s") as stream:
            return texts(stream.ready())

    until(lambda: not fresh(), "it to be too old")
    with open_stream(board.client, "/events/a?since=60s") as stream:
        assert texts(stream.ready()) == ["old"]


def test_channel_position_is_the_id_of_the_newest_event(board: Board) -> None:
    empty = board.sse.channel("a").position()
    assert re.fullmatch(r"[0-9A-Za-z]{5}-0", empty)
    assert board.sse.position("a") == empty
    ids = board.publish("a", 1, 2)
    assert ids[0].split("-")[0] == empty.split("-")[0], "asking has begun the epoch"
    assert board.sse.channel("a").position() == ids[-1]
    assert board.sse.position("b", "a") == f"{board.sse.position('b')},{ids[-1]}"


def test_channel_stream_that_begins_with_a_position_misses_nothing(board: Board) -> None:
    position, several = board.sse.position("a"), board.sse.position("a", "b")
    ids = board.publish("a", 1, 2)
    assert board.replayed("a", last=position) == [Event("1", id=ids[0]), Event("2", id=ids[1])]
    assert texts(board.replayed("a", "b", last=several)) == ["1", "2"]
    with open_stream(board.client, f"/events/a?last_event_id={position}") as stream:
        assert texts(stream.ready()) == ["1", "2"]


def test_channel_position_of_no_or_an_invalid_channel_is_refused(board: Board) -> None:
    for names in ((), ("a b",)):
        with pytest.raises(InvalidChannel):
            board.sse.position(*names)


def test_channel_ids_in_memory_differ_between_channels(board: Board) -> None:
    """So an id alone says of which channel it is: else a client of one could take another's for its own."""
    ids = [board.publish(name, "x")[0] for name in "abcdefgh"]
    assert len(set(ids)) == 8
