"""Several events published in one step, and what is said where some were not."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable, Event, InvalidChannel, InvalidEvent, PublishFailed, SseEmitter
from flask_sse_emitters.brokers import Publication, Published
from flask_sse_emitters.signals import event_published
from tests.support.board import Board, moved, texts


def test_publish_many_returns_ids_in_the_order_given(board: Board) -> None:
    with board.open("a") as a, board.open("b") as b:
        ids = board.sse.publish_many(
            [("a", 1), ("b", {"x": 2}), ("a", Event("3", event="e")), ("a", SseEmitter.event().data("4"))]
        )
        assert [ids[0], moved(ids[0], 1), moved(ids[0], 2)] == [ids[0], ids[2], ids[3]]
        assert [(event.id, event.data, event.event) for event in a.ready()] == [
            (ids[0], "1", None),
            (ids[2], "3", "e"),
            (ids[3], "4", None),
        ]
        assert b.ready() == [Event('{"x": 2}', id=ids[1])]
    assert board.sse.stats()["published"] == 4
    assert board.sse.publish_many([]) == []


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (("a b", 1), InvalidChannel),
        (("a", Event("x", id=1)), InvalidEvent),
        (("a", Event("x", event="gap")), InvalidEvent),
    ],
)
def test_publish_many_with_an_invalid_event_publishes_none(board: Board, bad: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        board.sse.publish_many([("a", 1), bad])
    assert board.sse.position("a").endswith("-0")


def test_publish_many_sends_a_signal_for_each_event(board: Board) -> None:
    seen: list[tuple[str, str]] = []

    def note(_app: object, channel: str, id: str, **_about: object) -> None:
        seen.append((channel, id))

    event_published.connect(note, board.app)
    ids = board.sse.publish_many([("a", 1), ("b", 2)])
    assert seen == list(zip("ab", ids, strict=True))


def test_publish_many_of_which_some_fail_says_what_became_of_each(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = board.app.extensions["sse_emitters"].channels.broker
    unavailable = BrokerUnavailable("away", may_be_published=False)

    def publish_many(publications: Sequence[Publication]) -> list[Published | Exception]:
        return [Published("e-1", is_new=True), *[unavailable] * (len(publications) - 1)]

    monkeypatch.setattr(broker, "publish_many", publish_many)
    with pytest.raises(PublishFailed, match="1 of 2 events failed, see results; the first: away") as failed:
        board.sse.publish_many([("a", 1), ("b", 2)])
    assert failed.value.results == ["e-1", unavailable]
    assert pickle.loads(pickle.dumps(failed.value)).results[0] == "e-1"
    assert board.sse.stats()["publish"]["failed"] == 1
    with pytest.raises(BrokerUnavailable):
        board.sse.publish("a", 1, last=True)


def test_publish_many_events_of_a_channel_stand_together(board: Board) -> None:
    with board.open("a") as stream:
        board.publish("a", "before")
        board.sse.publish_many([("a", number) for number in range(900)])
        board.publish("a", "after")
        assert texts(stream.ready()) == ["before", *map(str, range(900)), "after"]
