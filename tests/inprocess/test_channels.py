"""Channels: who gets their events, their subscribers, and the list of their emitters."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_emitters import (
    SseEmitter,
    SseEmitters,
)
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board, moved, texts
from tests.support.waiting import until


def test_channels_of_one_stream_bring_it_their_events(board: Board) -> None:
    with board.open("a", "b") as stream:
        board.publish("a", 1)
        board.publish("c", 2)
        board.publish("b", 3)
        assert texts(stream.ready()) == ["1", "3"]


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


def test_channel_subscription_can_be_returned_by_a_view(board: Board) -> None:
    @board.app.get("/mine")
    def mine() -> Any:
        emitter = board.sse.channel("a").subscribe(timeout=60)
        emitter.send("hello")
        return emitter

    with open_stream(board.client, "/mine") as stream:
        board.publish("a", "x")
        assert texts(stream.ready()) == ["hello", "x"]


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
    with board.open("a") as stream, board.open("a", "b") as other:
        board.publish("a", 1, 2)
        board.sse.channel("a").emitters.complete()
        assert texts(stream.ready()) == texts(other.ready()) == ["1", "2"]
    assert board.sse.stats()["closed"] == {"completed": 2}


def test_channel_emitters_complete_ends_streams_during_their_replay(board: Board) -> None:
    first, *_ = board.publish("a", *range(10))
    with board.open("a", last=first) as stream, board.open("a", "b", last=f"{first},{moved(first, -1)}") as other:
        board.sse.channel("a").emitters.complete()
        board.publish("a", "after")
        assert texts(stream.ready()) == texts(other.ready()) == [str(number) for number in range(1, 10)]
    assert board.sse.stats()["closed"] == {"completed": 2}
