"""Channels: their names and options, who gets their events, and the list of their emitters."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flask_sse_emitters import (
    Event,
    InvalidChannel,
    SseEmitter,
    SseEmitters,
)
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board, texts
from tests.support.waiting import until


def test_channels_of_one_stream_can_be_fifty(board: Board) -> None:
    names = [f"channel-{number}" for number in range(50)]
    with board.open(*names) as stream:
        for name in names:
            board.publish(name, name)
        events = stream.ready()
        assert texts(events) == names
    board.publish(names[0], "missed")
    assert texts(board.replayed(*names, last=str(events[-1].id))) == ["missed"]


def test_channel_publishes_and_counts_its_subscribers(board: Board) -> None:
    news = board.sse.channel("news")
    assert (news.name, repr(news), news.subscribers()) == ("news", "<Channel 'news'>", 0)
    with board.open("news", "other") as stream, board.open("news"):
        assert news.subscribers() == 2
        news.publish("x", event="e")
        assert [(event.event, event.data) for event in stream.ready()] == [("e", "x")]
    until(lambda: news.subscribers() == 0, "both to unsubscribe")


def test_channel_emitters_takes_an_emitter_of_a_view(board: Board) -> None:
    news = board.sse.channel("news")
    assert isinstance(news.emitters, SseEmitters)

    @board.app.get("/mine")
    def mine() -> Any:
        return news.emitters.add(news.emitters.add(SseEmitter()))

    board.publish("news", "before")
    with open_stream(board.client, "/mine") as stream:
        [event_id] = board.publish("news", "x")
        news.emitters.send("for those here")
        assert [(event.data, event.id) for event in stream.ready()] == [("x", event_id), ("for those here", event_id)]
    with pytest.raises(TypeError, match="add\\(\\) takes an SseEmitter"):
        news.emitters.add("x")  # type: ignore[type-var]


def test_channel_emitters_complete_ends_streams_after_all_published_events(board: Board) -> None:
    """Also those that still read their replay."""
    first, *_ = board.publish("a", *range(5))
    position = f"{first},{board.sse.position('b')}"
    with board.open("a") as live, board.open("a", last=first) as one, board.open("a", "b", last=position) as two:
        board.publish("a", *range(5, 10))
        board.sse.channel("a").emitters.complete()
        board.publish("a", "after")
        assert texts(live.ready()) == [str(number) for number in range(5, 10)]
        assert texts(one.ready()) == texts(two.ready()) == [str(number) for number in range(1, 10)]
    assert board.sse.stats()["closed"] == {"completed": 3}


@pytest.mark.parametrize(
    "path", ["/events/a", "/events?channel=a", "/events?channel=a&channel=a", "/events/a?channel=a"]
)
def test_channel_can_be_requested_in_the_path_and_in_the_query(board: Board, path: str) -> None:
    with open_stream(board.client, path) as stream:
        [event_id] = board.publish("a", "x")
        assert stream.ready() == [Event("x", id=event_id)]


@pytest.mark.parametrize("name", ["a/b", "user:7@example.org", "A.b-c_d", "a//b", "a/", "x" * 200, "..", "a:b/c"])
def test_channel_name_with_every_allowed_character_works_in_path_and_query(board: Board, name: str) -> None:
    with open_stream(board.client, f"/events/{name}") as stream, board.open(name) as other:
        board.publish(name, "x")
        assert texts(stream.ready()) == texts(other.ready()) == ["x"]


@pytest.mark.parametrize(
    "name", ["", "a b", "x" * 201, "ä", "a\n", "a,b", "a\0", "a?", None, 7, "\N{FULLWIDTH LATIN SMALL LETTER A}"]
)
def test_channel_name_that_is_invalid_is_rejected_by_publish_and_channel(board: Board, name: Any) -> None:
    for use in (lambda: board.sse.publish(name, "x"), lambda: board.sse.channel(name)):
        with pytest.raises(InvalidChannel, match=re.escape("1 to 200 ASCII letters, digits and . _ - : / @")):
            use()
    assert issubclass(InvalidChannel, ValueError)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?channel=", "a channel's name has 1 to 200"),
        ("?channel=a&channel=b%20c", "'b c'"),
        ("?channel=" + "x" * 300, "unlike one of 300 characters"),
        ("/a%20b", "'a b'"),
    ],
)
def test_channel_name_that_is_invalid_is_a_400_that_says_what_to_change(
    board: Board, query: str, expected: str
) -> None:
    answer = board.client.get(f"/events{query}")
    assert (answer.status_code, answer.mimetype) == (400, "text/plain")
    assert expected in answer.text


def test_channels_of_one_stream_beyond_fifty_are_a_400(board: Board) -> None:
    names = [f"c{number}" for number in range(51)]
    with board.open(*names[:50]) as stream:
        board.publish(names[49], "x")
        assert texts(stream.ready()) == ["x"]
    answer = board.client.get("/events?channel=" + "&channel=".join(names))
    assert (answer.status_code, answer.mimetype) == (400, "text/plain")
    assert "51 channels: one stream carries 50 at most" in answer.text


def test_channels_that_are_missing_in_a_request_are_a_400(board: Board) -> None:
    answer = board.client.get("/events")
    assert (answer.status_code, answer.mimetype) == (400, "text/plain")
    assert "no channel: ask for /events?channel=NAME" in answer.text


def test_channel_options_hold_for_later_calls(board: Board) -> None:
    board.sse.channel("a", history=1, max_clients=2)
    board.sse.channel("a", public=True)
    board.sse.channel("a")
    ids = board.publish("a", 1, 2, 3)
    assert len(board.replayed("a", last=ids[0])[1:]) == 1


@pytest.mark.parametrize("option", ["history", "max_clients"])
def test_channel_options_that_contradict_earlier_ones_are_rejected(board: Board, option: str) -> None:
    given: dict[str, Any] = {option: 3}
    board.sse.channel("a", **given)
    with pytest.raises(ValueError, match=rf"{option}=4 contradicts sse.channel\('a', {option}=3\)"):
        board.sse.channel("a", public=True, **{**given, option: 4})
    board.sse.channel("a", public=False, **given)  # so the rejected call has not made it public


@pytest.mark.parametrize(
    ("options", "error", "expected"),
    [
        ({"history": -1}, ValueError, "history must be an int, 0 or more"),
        ({"max_clients": 0}, ValueError, "max_clients must be an int, 1 or"),
        *(({"public": public}, TypeError, "public is True or False") for public in ("false", 1, None, "yes")),
    ],
)
def test_channel_options_that_are_invalid_are_rejected(
    board: Board, options: dict[str, Any], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        board.sse.channel("a", **options)


def test_channel_max_clients_leaves_room_in_other_channels(board: Board) -> None:
    board.sse.channel("a", max_clients=1)
    with board.open("a", "b"), board.open("b"):
        board.get("/events/a").close()
        assert [board.sse.channel(name).subscribers() for name in "ab"] == [1, 2]
